"""Edit a video: fit it to the model, encode, sample, decode, and give it back at its own size and length.

Shapes: B batch (one), C channels, F frames, H W pixels, T text tokens, D text width.
"""

import importlib.resources
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from imvideoedit.backbone import Backbone, load_backbone
from imvideoedit.checkpoint import load_adapter, read_header
from imvideoedit.errors import UserError
from imvideoedit.keeping import blend, change_mask
from imvideoedit.methods.base import EditBatch, Method
from imvideoedit.nano.grammar import apply_instruction
from imvideoedit.sampling import guided, shifted_sigmas, solve

BUNDLED = "bundled"
AREA_WEIGHT = 0.25  # how much a smaller area counts against a closer aspect ratio, both as logarithms
RESIZE_CHUNK = 8  # frames resized at a time, to bound memory
Progress = Callable[[int, int], None]
"""Called with (solver steps done, solver steps in all)."""


@dataclass(frozen=True)
class Defaults:
    """How an adapter wants to be run, from the training summary of its header.

    Attributes:
        max_area: pixels of a frame that the model sees, at most.
        max_frames: frames edited at a time, at most; of the form 4k + 1 for Wan.
        steps, guidance: of the sampler.
        shift: flow shift of the sampler; None for the backbone's own.
        keep: grey levels of difference below which the source's own pixels are given back; 0 for never.

    Raises:
        UserError: a number is out of its range.
    """

    max_area: int = 480 * 832
    max_frames: int = 81
    steps: int = 50
    guidance: float = 5.0
    shift: float | None = None
    keep: float = 0.0

    def __post_init__(self) -> None:
        if min(self.max_area, self.max_frames, self.steps, self.guidance) < 1 or (self.shift or 1) <= 0:
            raise UserError(
                "sampler.max_area, max_frames, steps and guidance must be at least 1 and shift above 0; got "
                f"{self.max_area}, {self.max_frames}, {self.steps}, {self.guidance} and {self.shift}"
            )
        if not 0 <= self.keep <= 255:
            raise UserError(f"sampler.keep is {self.keep}; it is in grey levels, 0 to 255")

    @classmethod
    def read(cls, training: dict[str, Any]) -> "Defaults":
        """From a header's training summary; what it does not say keeps the default."""
        return cls(**training.get("sampler", {}))


@dataclass(frozen=True)
class EditResult:
    """An edited video ``[F, H, W, 3]`` uint8, of the source's shape, and what it was made with."""

    frames: np.ndarray
    prompt: str
    source_prompt: str | None
    seed: int
    steps: int
    guidance: float
    keep: float


class EditPipeline:
    """Edits videos with a method installed in a backbone.

    Usage::

        pipeline = EditPipeline.from_pretrained()
        result = pipeline(video_FHWC, "make the red box blue")

    Args:
        backbone: loaded with all its parts.
        method: installed in the backbone's transformer.
        defaults: used where a call does not say.
    """

    def __init__(self, backbone: Backbone, method: Method, defaults: Defaults | None = None) -> None:
        self.backbone, self.method, self.defaults = backbone, method, defaults or Defaults()

    @classmethod
    def from_pretrained(
        cls, backbone: Backbone | str | None = None, adapter: Path | str = BUNDLED, device: str | None = None
    ) -> "EditPipeline":
        """Load an adapter and the backbone it was trained in.

        Args:
            backbone: loaded already, or its name or folder; the one that the adapter names if None.
            adapter: a file, or ``bundled`` for the nano world's adapter in the package.
            device: the GPU if there is one, else the CPU.

        Raises:
            UserError: file missing or damaged, backbone missing or not the adapter's.
        """
        path = adapter_path(adapter)
        header = read_header(path)
        if not isinstance(backbone, Backbone):
            name, revision = header.backbone["name"], header.backbone.get("revision")
            backbone = load_backbone(backbone or name, revision if backbone in (None, name) else None, device)
        method = load_adapter(path, backbone.transformer)
        return cls(backbone, method, Defaults.read(header.training))

    @torch.no_grad()
    def __call__(
        self,
        video_FHWC: np.ndarray,
        instruction: str,
        prompt: str | None = None,
        source_prompt: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        keep: float | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> EditResult:
        """Edit every frame of a video.

        Args:
            video_FHWC: uint8 RGB, any size and length.
            instruction: what to change.
            prompt: full description after the edit; made from the instruction if None.
            source_prompt: full description before the edit, which helps to make the prompt.
            steps: solver steps, at least 1.
            guidance: scale of classifier-free guidance, at least 1; 1 skips the unconditional branch.
            keep: grey levels in [0, 255]: where the edit differs less from the source, blurred over a little area, the
                source's own pixels are given back; 0 for never.
            seed: of the noise.
            progress: told after every solver step.

        Raises:
            UserError: a number is out of its range.
            ValueError: the video is not uint8 ``[F, H, W, 3]``.
        """
        if video_FHWC.dtype != np.uint8 or video_FHWC.ndim != 4 or video_FHWC.shape[3] != 3 or not video_FHWC.size:
            raise ValueError(f"need a uint8 video [F, H, W, 3]; got {video_FHWC.dtype} {video_FHWC.shape}")
        given: dict[str, Any] = {"steps": steps, "guidance": guidance, "keep": keep}
        chosen = replace(self.defaults, **{name: value for name, value in given.items() if value is not None})
        prompt = self.expand(instruction, source_prompt) if prompt is None else prompt
        texts_BTD = self.backbone.encode_text([prompt, ""] if chosen.guidance != 1 else [prompt])
        limit = chosen.max_frames
        chunks = [video_FHWC[start : start + limit] for start in range(0, len(video_FHWC), limit)]
        generator = torch.Generator().manual_seed(seed)
        edited = []
        for index, chunk in enumerate(chunks):
            callback = None
            if progress is not None:
                first = index * chosen.steps

                def callback(step: int, _: Tensor, first: int = first) -> None:
                    progress(first + step + 1, len(chunks) * chosen.steps)

            edited.append(self._edit(chunk, texts_BTD, chosen, generator, callback))
        frames = np.concatenate(edited)
        return EditResult(frames, prompt, source_prompt, seed, chosen.steps, chosen.guidance, chosen.keep)

    def expand(self, instruction: str, source_prompt: str | None = None) -> str:
        """The edited prompt: by the nano world's grammar on a nano backbone, where it knows the instruction.

        Elsewhere, and for instructions that the grammar does not know, it is the text as typed.
        """
        prompt = apply_instruction(instruction, source_prompt) if self.backbone.name == "nano" else None
        return instruction if prompt is None else prompt

    def _edit(self, video_FHWC, texts_BTD: Tensor, chosen: Defaults, generator, callback) -> np.ndarray:
        """Edit one chunk; shape and type stay."""
        frames, height, width = video_FHWC.shape[:3]
        size = fit_size(height, width, chosen.max_area, self.backbone.pixel_multiple)
        group = self.backbone.vae_temporal
        padding = -(frames - 1) % group
        fitted = _resize(np.concatenate([video_FHWC, np.repeat(video_FHWC[-1:], padding, axis=0)]), size)
        pixels_BCFHW = torch.from_numpy(fitted).permute(3, 0, 1, 2)[None].to(self.backbone.device)
        source_BCFHW = self.backbone.encode_video(pixels_BCFHW.float() / 127.5 - 1)
        sigmas = shifted_sigmas(chosen.steps, self.backbone.shift if chosen.shift is None else chosen.shift)
        latents_BCFHW = self._sample(source_BCFHW, texts_BTD, sigmas, chosen.guidance, generator, callback)
        decoded_CFHW = self.backbone.decode_video(latents_BCFHW)[0, :, :frames]
        pixels_FHWC = ((decoded_CFHW + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 3, 0).cpu().numpy()
        edited_FHWC = _resize(pixels_FHWC, (height, width))
        if chosen.keep == 0:
            return edited_FHWC
        return blend(video_FHWC, edited_FHWC, change_mask(fitted[:frames], pixels_FHWC, chosen.keep))

    def _sample(self, source_BCFHW, texts_BTD, sigmas, guidance, generator, callback) -> Tensor:
        transformer = self.backbone.transformer
        source_BCFHW = source_BCFHW.to(transformer.device)
        batches = [EditBatch(source_BCFHW, None, text_TD[None]) for text_TD in texts_BTD.to(transformer.device)]
        observed = self.method.observe(transformer, batches[0])
        branches = [self.method.velocity(transformer, batch, observed) for batch in batches]
        noise_BCFHW = torch.randn(source_BCFHW.shape, generator=generator).to(source_BCFHW)
        return solve(guided(branches[0], branches[-1], guidance), noise_BCFHW, sigmas, callback)


def adapter_path(adapter: Path | str) -> Path:
    """The file of an adapter; ``bundled`` names the one in the package."""
    if adapter != BUNDLED:
        return Path(adapter)
    return Path(str(importlib.resources.files("imvideoedit.nano") / "adapter.safetensors"))


def fit_size(height: int, width: int, max_area: int, multiple: int) -> tuple[int, int]:
    """The (height, width) closest to a picture's aspect ratio among those the model takes.

    Both are multiples of ``multiple``, their product is at most ``max_area`` and, as far as the ratio allows, near it.

    Raises:
        UserError: ``max_area`` is below one square of ``multiple`` pixels.
    """
    if max_area < multiple * multiple:
        raise UserError(f"an area of {max_area} pixels is less than the smallest picture, {multiple}x{multiple}")
    aspect = width / height
    choices = []
    for tall in range(multiple, max_area // multiple + 1, multiple):
        widest = max_area // tall // multiple * multiple
        wide = min(max(round(tall * aspect / multiple) * multiple, multiple), widest)
        loss = abs(math.log(wide / tall / aspect)) + AREA_WEIGHT * math.log(max_area / (tall * wide))
        choices.append((loss, tall, wide))
    _, tall, wide = min(choices)
    return tall, wide


def _resize(video_FHWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubic with antialiasing; a video of that size already is returned as it is."""
    if video_FHWC.shape[1:3] == size:
        return video_FHWC
    resized = []
    for start in range(0, len(video_FHWC), RESIZE_CHUNK):
        part_FCHW = torch.from_numpy(video_FHWC[start : start + RESIZE_CHUNK]).permute(0, 3, 1, 2).float()
        part_FCHW = functional.interpolate(part_FCHW, size, mode="bicubic", antialias=True)
        resized.append(part_FCHW.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy())
    return np.concatenate(resized)
