"""The networks, from checked files; only tensors are unpickled, and nothing is downloaded.

Legend: N frames, H W pixels, D channels. Frames are float ``[N, 3, H, W]`` in [0, 1].
"""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPModel

from imvideoedit.common.errors import UserError
from imvideoedit.common.tensor_file import read_pickled
from imvideoedit.common.torchvision_fix import fix_torchvision

IMAGENET_STATISTICS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_STATISTICS = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
RAFT_LEAST = 128  # least pixels of a side for torchvision's RAFT
RAFT_UPDATES = 20  # as in VBench


class ClipEncoder:
    """CLIP's image and text encoders (Radford et al. 2021).

    Args:
        folder: with ``config.json`` and ``model.safetensors``.
        texts: folder with the tokenizer, which all CLIP models share.

    Raises:
        UserError: a file is missing or damaged.
    """

    def __init__(self, folder: Path, texts: Path, device: str) -> None:
        try:
            self._model: Any = CLIPModel.from_pretrained(folder, use_safetensors=True).to(device).eval()
            self._tokenizer: Any = AutoTokenizer.from_pretrained(texts, trust_remote_code=False)
        except Exception as error:  # transformers does not document what a damaged folder raises
            why = str(error).strip().splitlines()[0]
            raise UserError(
                f"{folder} or {texts} holds no CLIP that can be loaded ({why}); download it again"
            ) from error
        self._side: int = self._model.config.vision_config.image_size
        self._length: int = self._model.config.text_config.max_position_embeddings
        self._device = device

    @property
    def scale(self) -> float:
        """exp of the learned temperature: 100 in the published models."""
        return float(self._model.logit_scale.detach().exp())

    @torch.inference_mode()
    def images(self, frames: Tensor) -> Tensor:
        """Unit vectors ``[N, D]``; frames are resized by their shorter side, bicubic, and center-cropped."""
        side = self._side
        sized = _shorter_side(frames.to(self._device), side, "bicubic").clamp(0, 1)
        top, left = (round((length - side) / 2) for length in sized.shape[-2:])
        pixels = _normalised(sized[..., top : top + side, left : left + side], CLIP_STATISTICS)
        pooled = self._model.vision_model(pixel_values=pixels).pooler_output
        return F.normalize(self._model.visual_projection(pooled), dim=-1).cpu()

    @torch.inference_mode()
    def text(self, text: str) -> Tensor:
        """Unit vector ``[D]``; longer texts are truncated."""
        read = self._tokenizer(text, truncation=True, max_length=self._length, return_tensors="pt").to(self._device)
        tokens = {key: read[key] for key in ("input_ids", "attention_mask")}
        pooled = self._model.text_model(**tokens).pooler_output
        return F.normalize(self._model.text_projection(pooled), dim=-1)[0].cpu()


class Dino:
    """DINO ViT-B/16 (Caron et al. 2021) on timm: the class token's features."""

    def __init__(self, path: Path, device: str) -> None:
        timm = need("timm")
        state = read_state(path)
        width = state["cls_token"].shape[-1]
        depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
        shape = {"embed_dim": width, "depth": depth, "num_heads": max(width // 64, 1)}
        self._model: Any = timm.create_model(
            "vit_base_patch16_224", pretrained=False, num_classes=0, dynamic_img_size=True, **shape
        )
        fill(self._model, state, path)
        self._model.to(device).eval()
        self._device = device

    @torch.inference_mode()
    def images(self, frames: Tensor) -> Tensor:
        """Unit vectors ``[N, D]``; frames are resized to a shorter side of 224, and cropped to full patches."""
        sized = _shorter_side(frames.to(self._device), 224, "bilinear")
        height, width = (length // 16 * 16 for length in sized.shape[-2:])
        return F.normalize(self._model(_normalised(sized[..., :height, :width], IMAGENET_STATISTICS)), dim=-1).cpu()


class Raft:
    """RAFT-large (Teed and Deng 2020) of torchvision."""

    def __init__(self, path: Path, device: str) -> None:
        need("torchvision")
        from torchvision.models.optical_flow import raft_large

        self._model: Any = raft_large(weights=None, progress=False)
        fill(self._model, read_state(path), path)
        self._model.to(device).eval()
        self._device = device

    @torch.inference_mode()
    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Flow ``[2, H, W]`` in pixels, x then y: the content at p in ``first`` is at p + flow(p) in ``second``."""
        pair = torch.stack([first, second]).to(self._device) * 2 - 1
        height, width = pair.shape[-2:]
        tall, wide = (max(RAFT_LEAST, -(-length // 8) * 8) - length for length in (height, width))
        padding = wide // 2, wide - wide // 2, tall // 2, tall - tall // 2
        padded = F.pad(pair, padding, mode="replicate")
        flow = self._model(padded[:1], padded[1:], num_flow_updates=RAFT_UPDATES)[-1][0]
        return flow[:, padding[2] : padding[2] + height, padding[0] : padding[0] + width].cpu()


def aesthetic_head(path: Path) -> nn.Linear:
    """LAION's linear head on CLIP L/14's unit vectors."""
    state = read_state(path)
    head = nn.Linear(state["weight"].shape[1], 1)
    fill(head, state, path)
    return head.eval()


def musiq(path: Path, device: str) -> Callable[[Tensor], Tensor]:
    """MUSIQ (Ke et al. 2021) of pyiqa, trained on SPAQ: frames to scores of 0 to 100."""
    need("pyiqa")
    from pyiqa.archs.musiq_arch import MUSIQ

    state = read_state(path)
    blocks = {name.split(".")[1] for name in state if "encoderblock" in name}
    hidden = state["embedding.weight"].shape[0]
    mlp = next(tensor.shape[0] for name, tensor in state.items() if name.endswith("mlp.fc1.weight"))
    shape = {"hidden_size": hidden, "mlp_dim": mlp, "num_layers": len(blocks), "num_heads": max(hidden // 64, 1)}
    model = MUSIQ(pretrained=False, num_class=1, **shape)
    fill(model, state, path)
    model.to(device).eval()
    return lambda frames: model(frames.to(device))


class Lpips(nn.Module):
    """LPIPS 0.1 with AlexNet (Zhang et al. 2018, equation 1) on torchvision.

    Args:
        backbone: torchvision's AlexNet; only its features are read.
        heads: a weight for each channel of five layers.
    """

    TAPS = (1, 4, 7, 9, 11)  # AlexNet's five rectified layers

    def __init__(self, backbone: Path, heads: Path, device: str) -> None:
        super().__init__()
        need("torchvision")
        from torchvision.models import alexnet

        network: Any = alexnet(weights=None).features
        state = {name[9:]: value for name, value in read_state(backbone).items() if name.startswith("features.")}
        fill(network, state, backbone)
        self._layers = network.to(device).eval()
        weights = read_state(heads)
        self._heads = [weights[f"lin{layer}.model.1.weight"].to(device) for layer in range(len(self.TAPS))]
        self._device = device

    @torch.inference_mode()
    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Distances ``[N]`` of frames to others."""
        shift, scale = (
            torch.tensor(values, device=self._device)[:, None, None]
            for values in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450))
        )
        seen = torch.cat([first, second]).to(self._device) * 2 - 1
        seen, distance = (seen - shift) / scale, torch.zeros(len(first), device=self._device)
        for place, layer in enumerate(self._layers[: self.TAPS[-1] + 1]):
            seen = layer(seen)
            if place in self.TAPS:
                unit = seen / (seen.norm(dim=1, keepdim=True) + 1e-10)
                apart = (unit[: len(first)] - unit[len(first) :]) ** 2
                distance += (apart * self._heads[self.TAPS.index(place)]).sum(1).mean((1, 2))
        return distance.cpu()


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name.

    Raises:
        UserError: it holds other objects than tensors, or is damaged.
    """
    return read_pickled(path, "download it again")


def fill(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load a state dict, strictly.

    Raises:
        UserError: it does not fit.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        words = " ".join(str(error).split())[:200]
        raise UserError(f"{path} does not fit {type(model).__name__} ({words}); download it again") from error


def need(library: str) -> Any:
    """Import a library of the ``metrics`` extra.

    Raises:
        UserError: it is not installed.
    """
    fix_torchvision()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return __import__(library)
    except ImportError as error:
        raise UserError(f"{library} is not installed ({error}); pip install 'imvideoedit[metrics]'") from error


def _shorter_side(frames: Tensor, side: int, mode: str) -> Tensor:
    height, width = frames.shape[-2:]
    scale = side / min(height, width)
    size = max(side, round(height * scale)), max(side, round(width * scale))
    return F.interpolate(frames, size=size, mode=mode, align_corners=False)


def _normalised(frames: Tensor, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    mean, spread = (torch.tensor(values, device=frames.device)[:, None, None] for values in statistics)
    return (frames - mean) / spread
