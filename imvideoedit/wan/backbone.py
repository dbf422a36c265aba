"""Load a Wan text-to-video model from its diffusers parts, frozen.

Shapes: B batch, C channels, F frames, H W pixels or latent pixels, T text tokens, D text width.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, UMT5EncoderModel

from imvideoedit.common.bundled import IMAGE_TO_VIDEO
from imvideoedit.wan.bases import check_declared
from imvideoedit.wan.encoders import ImageEncoder, encode_text
from imvideoedit.wan.identity import Origin, parameter_hash
from imvideoedit.wan.image_to_video import apply_change
from imvideoedit.wan.loading import check_finite, load_asked, named
from imvideoedit.wan.locations import (
    NANO_IMAGE_TO_VIDEO,
    default_device,
    default_dtype,
    locate,
    read_shift,
)
from imvideoedit.wan.patch_autoencoder import NanoAutoencoder
from imvideoedit.wan.quantizations import check_combination
from imvideoedit.wan.streaming_vae import decode_parts, encode_parts, without_gradient

PARTS = ("vae", "text_encoder")
_AUTOENCODERS: dict[str, Any] = {"AutoencoderKLWan": AutoencoderKLWan, "NanoAutoencoder": NanoAutoencoder}


@dataclass
class Backbone:
    """A frozen Wan model in eval mode.

    Attributes:
        name: as given: ``nano``, ``wan_1_3b``, a folder or a hub id.
        revision: of a hub id; None for folders.
        transformer: the denoiser.
        vae, text_encoder, tokenizer: None where they were not loaded.
        shift: flow shift of the folder's scheduler.
        origin: of the transformer, where it was loaded from files.
        image_encoder: of an image-to-video model that reads an image's tokens; loaded with the text encoder.
        quantization, file: of the transformer, as given.
    """

    name: str
    revision: str | None
    transformer: WanTransformer3DModel
    vae: AutoencoderKLWan | None
    text_encoder: UMT5EncoderModel | None
    tokenizer: PreTrainedTokenizerBase | None
    shift: float
    origin: Origin | None = None
    image_encoder: ImageEncoder | None = None
    quantization: str | None = None
    file: str | None = None

    @property
    def title(self) -> str:
        """What was loaded, for people: ``wan_1_3b in nf4``, or the name of a file."""
        return f"{self.file or self.name}{f' in {self.quantization}' if self.quantization else ''}"

    @property
    def device(self) -> torch.device:
        return self.transformer.patch_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.transformer.patch_embedding.weight.dtype

    @property
    def is_nano(self) -> bool:
        """Whether this is a backbone of the nano world, whose grammar its prompts follow, by its autoencoder."""
        return isinstance(_present(self.vae, "vae"), NanoAutoencoder)

    @property
    def vae_spatial(self) -> int:
        """Pixels of a latent pixel's side."""
        return _present(self.vae, "vae").config.scale_factor_spatial

    @property
    def vae_temporal(self) -> int:
        """Frames of a latent frame, after the first."""
        return _present(self.vae, "vae").config.scale_factor_temporal

    @property
    def pixel_multiple(self) -> int:
        """Height and width of a video must be multiples of this."""
        return self.vae_spatial * max(self.transformer.config.patch_size[1:])

    @torch.no_grad()
    def encode_video(self, video_BCFHW: Tensor) -> Tensor:
        """Latents of a video, normalised by the autoencoder's own statistics; the posterior's mode, so repeatable.

        Args:
            video_BCFHW: in [-1, 1]; F = vae_temporal * k + 1, H and W multiples of ``pixel_multiple``.

        Returns:
            float32 ``[B, C', k+1, H/vae_spatial, W/vae_spatial]`` on the autoencoder's device.

        Raises:
            ValueError: F, H or W does not fit.
        """
        frames, height, width = video_BCFHW.shape[2:]
        if frames % self.vae_temporal != 1 % self.vae_temporal:
            raise ValueError(f"{frames} frames; the autoencoder takes {self.vae_temporal}*k + 1")
        if height % self.pixel_multiple or width % self.pixel_multiple:
            raise ValueError(f"{height}x{width} pixels; both must be multiples of {self.pixel_multiple}")
        return torch.cat(list(self.encode_parts([video_BCFHW])), dim=2)

    @torch.no_grad()
    def decode_video(self, latents_BCFHW: Tensor) -> Tensor:
        """Inverse of :meth:`encode_video`: float32 video in [-1, 1] on the autoencoder's device."""
        return torch.cat(list(self.decode_parts([latents_BCFHW])), dim=2)

    def encode_parts(self, parts_BCFHW: Iterable[Tensor]) -> Iterator[Tensor]:
        """:meth:`encode_video` of a video in parts: first vae_temporal * k + 1 frames, then vae_temporal * k each."""
        vae = _present(self.vae, "vae")
        like = next(vae.parameters())
        mean, std = self._latent_statistics(like.device)
        parts = encode_parts(vae, (part.to(like.device, like.dtype) for part in parts_BCFHW))
        return ((latents.float() - mean) / std for latents in without_gradient(parts))

    def decode_parts(self, parts_BCFHW: Iterable[Tensor]) -> Iterator[Tensor]:
        """:meth:`decode_video` of latents in parts."""
        vae = _present(self.vae, "vae")
        like = next(vae.parameters())
        mean, std = self._latent_statistics(like.device)
        raw = ((part.to(like.device).float() * std + mean).to(like.dtype) for part in parts_BCFHW)
        return (video.float() for video in without_gradient(decode_parts(vae, raw)))

    @torch.no_grad()
    def encode_text(self, prompts: list[str]) -> Tensor:
        """Text embeddings as diffusers' ``WanPipeline`` makes them.

        Args:
            prompts: B texts; what exceeds T tokens is cut off.

        Returns:
            ``[B, T, D]`` in the text encoder's dtype and on its device, zeros after each text's end;
            T = min(the tokenizer's maximum, 512).
        """
        return encode_text(_present(self.text_encoder, "text_encoder"), _present(self.tokenizer, "tokenizer"), prompts)

    @torch.no_grad()
    def encode_image(self, image_HWC: np.ndarray) -> Tensor:
        """Tokens ``[1, I, D]`` of an image, uint8 ``[H, W, 3]``, where the transformer reads them."""
        return _present(self.image_encoder, "image_encoder")(image_HWC)

    def parameter_hash(self, besides: Iterable[Tensor] = ()) -> str:
        """See :func:`parameter_hash`; computed once for the files that the transformer was loaded from."""
        return (self.origin.parameter_hash if self.origin else parameter_hash)(self.transformer, besides)

    def _latent_statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        config = _present(self.vae, "vae").config
        mean, std = (
            torch.tensor(values, device=device).reshape(1, -1, 1, 1, 1)
            for values in (config.latents_mean, config.latents_std)
        )
        return mean, std


def load_backbone(
    name: str = "nano",
    revision: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    parts: Collection[str] = PARTS,
    quantization: str | None = None,
    file: Path | str | None = None,
) -> Backbone:
    """Load a backbone.

    Args:
        name: ``nano`` or ``nano_image_to_video`` (bundled), ``wan_1_3b`` (the hub's, at a fixed revision, or the folder
            in the environment variable IMVIDEOEDIT_WAN), a diffusers folder, or a hub id, which touches the network.
        revision: of a hub id.
        device: the GPU if there is one, else the CPU.
        dtype: of transformer and text encoder; bfloat16 on a GPU, float32 on a CPU. The autoencoder is always float32.
        parts: which of ``vae`` and ``text_encoder`` (with its tokenizer) to load besides the transformer.
        quantization: of the transformer, one of ``wan.quantized.QUANTIZATIONS``.
        file: of the transformer's weights, GGUF or safetensors; all else, also its config, is the backbone's.

    Raises:
        UserError: nothing there, not loadable, or a model that no adapter goes into.
    """
    check_combination(name, quantization, file)
    place, revision = locate(name, revision)
    device = default_device(device)
    dtype = dtype or default_dtype(device)
    source: dict[str, Any] = {"pretrained_model_name_or_path": place, "revision": revision}
    with named(name, place):
        check_declared(name, source)
        transformer, origin = load_asked(name, source, dtype, quantization, file)
        if name == NANO_IMAGE_TO_VIDEO:  # which is not what the folder holds
            origin = None
            apply_change(transformer, IMAGE_TO_VIDEO)
        shift = read_shift(source)
    transformer.requires_grad_(False).eval().to(device)
    check_finite(transformer, name)
    own = None if file is None else str(file)
    backbone = Backbone(name, revision, transformer, None, None, None, shift, origin, None, quantization, own)
    return with_parts(backbone, parts, device, dtype)


def with_parts(
    backbone: Backbone, parts: Collection[str], device: str | torch.device, dtype: torch.dtype | None = None
) -> Backbone:
    """The same backbone, its transformer shared, with those ``parts`` loaded that it lacks.

    Args:
        dtype: of the text encoder; the transformer's if None.

    Raises:
        UserError: not loadable.
    """
    place, revision = locate(backbone.name, backbone.revision)
    source: dict[str, Any] = {"pretrained_model_name_or_path": place, "revision": revision}
    loaded: dict[str, Any] = {}
    with named(backbone.name, place):
        if "vae" in parts and backbone.vae is None:
            kind = AutoencoderKLWan.load_config(**source, subfolder="vae").get("_class_name", "AutoencoderKLWan")
            loaded["vae"] = _AUTOENCODERS[kind].from_pretrained(**source, subfolder="vae", torch_dtype=torch.float32)
        if "text_encoder" in parts and backbone.text_encoder is None:
            own: dict[str, Any] = {"subfolder": "text_encoder", "dtype": dtype or backbone.dtype}
            loaded["text_encoder"] = UMT5EncoderModel.from_pretrained(**source, **own)
            loaded["tokenizer"] = AutoTokenizer.from_pretrained(**source, subfolder="tokenizer")
            if backbone.transformer.config.image_dim is not None:
                loaded["image_encoder"] = ImageEncoder.load(backbone.name, source, own["dtype"])
    for name in loaded.keys() - {"tokenizer"}:
        loaded[name].requires_grad_(False).eval().to(device)
        check_finite(loaded[name], backbone.name)
    return replace(backbone, **loaded)


def _present(part: Any, name: str) -> Any:
    if part is None:
        raise ValueError(f"this backbone was loaded without its {name}")
    return part
