"""Edit a video: fit it to the model, encode, sample, decode, and give it back at its own size and length.

Shapes: B batch (one), C channels, F frames, H W pixels, T text tokens, D text width.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imvideoedit.common.bundled import adapter_path
from imvideoedit.editing.compositing import keep_source
from imvideoedit.editing.denoiser import Denoiser, Progress, Watch
from imvideoedit.editing.lora import fuse_lora
from imvideoedit.editing.offload import Placement
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.methods.adapter_file import load_adapter, read_header
from imvideoedit.methods.base import Method
from imvideoedit.methods.mixture import Mixture
from imvideoedit.video.geometry import (
    Counted,
    fit_size,
    from_model,
    in_parts,
    peeked,
    resized,
    to_model,
    whole_groups,
)
from imvideoedit.wan.backbone import Backbone, load_backbone
from imvideoedit.wan.kernels import NATIVE, choose_attention, compile_blocks
from imvideoedit.wan.locations import default_device, default_dtype
from imvideoedit.world.grammar import apply_instruction

PART = 2  # latent frames encoded or decoded at a time
Opener = Callable[[], Iterable[np.ndarray]]
"""Gives a video's frames from the first on, uint8 ``[H, W, 3]``, as often as it is called."""


@dataclass(frozen=True)
class EditResult:
    """An edited video ``[F, H, W, 3]`` uint8, of the source's shape, and what it was made with."""

    frames: np.ndarray
    prompt: str
    source_prompt: str | None
    seed: int
    settings: SamplingConfig


class EditPipeline:
    """Edits videos with a method installed in a backbone.

    Usage::

        pipeline = EditPipeline.from_pretrained()
        result = pipeline(video_FHWC, "make the red box blue")

    Args:
        backbone: loaded with all its parts.
        method: installed in the backbone's transformer.
        defaults: used where a call does not say.
        placement: where the backbone's parts are while they work; all where they are now if None.
    """

    def __init__(
        self,
        backbone: Backbone,
        method: Method,
        defaults: SamplingConfig | None = None,
        placement: Placement | None = None,
    ) -> None:
        self.backbone, self.method, self.defaults = backbone, method, defaults or SamplingConfig()
        self.placement = placement or Placement(backbone, method, backbone.device, "full")

    @classmethod
    def from_pretrained(
        cls,
        backbone: Backbone | str | None = None,
        adapter: Path | str | Mapping[Path | str, float] = "bundled",
        device: str | None = None,
        memory: str = "auto",
        loras: Mapping[Path, float] | None = None,
        attention: str = NATIVE,
        compile: bool = False,
    ) -> "EditPipeline":
        """Load an adapter, or several, and the backbone it was trained in.

        Args:
            backbone: loaded already, or its name or folder; the one that the adapter names if None.
            adapter: a file, or ``bundled`` for the nano world's adapter in the package; or several with a weight each,
                see :class:`imvideoedit.methods.mixture.Mixture`. The first one's settings are the pipeline's.
            device: the GPU if there is one, else the CPU; that of a backbone that is loaded already.
            memory: ``auto`` takes what fits when the first edit begins; or one of
                :data:`imvideoedit.editing.offload.NOTCHES`.
            loras: of the backbone, with a weight each, such as few-step distillations.
            attention: back-end by its name in diffusers, such as ``flash`` or ``sage``.
            compile: the blocks, by ``torch.compile``; the first pass of each size then takes minutes.

        Raises:
            UserError: file missing or damaged, backbone missing or not the adapter's, or no such attention here.
        """
        files = adapter if isinstance(adapter, Mapping) else {adapter: 1.0}
        weights = {adapter_path(file): weight for file, weight in files.items()}
        header = read_header(next(iter(weights)))
        if not isinstance(backbone, Backbone):
            name, revision = header.backbone["name"], header.backbone.get("revision")
            where = default_device(device)
            revision = revision if backbone in (None, name) else None
            # On the CPU first: whether it fits the device as a whole is not known yet.
            backbone = load_backbone(backbone or name, revision, "cpu", default_dtype(where))
        else:
            where = backbone.device
        method = _installed(weights, backbone.transformer)
        for lora, weight in (loras or {}).items():
            fuse_lora(backbone.transformer, lora, weight)
        choose_attention(backbone.transformer, attention, where)
        if compile:
            compile_blocks(backbone.transformer)
        return cls(backbone, method, SamplingConfig.read(header.training), Placement(backbone, method, where, memory))

    def __call__(
        self,
        video_FHWC: np.ndarray,
        instruction: str,
        prompt: str | None = None,
        source_prompt: str | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        **settings: Any,
    ) -> EditResult:
        """Edit every frame of a video.

        Args:
            video_FHWC: uint8 RGB, any size and length.
            instruction: what to change.
            prompt: full description after the edit; made from the instruction if None.
            source_prompt: full description before the edit, which helps to make the prompt.
            seed: of the noise.
            progress: told how far it is.
            settings: fields of :class:`SamplingConfig` in place of the adapter's own, such as ``steps`` or ``keep``.

        Raises:
            UserError: a number is out of its range.
            ValueError: the video is not uint8 ``[F, H, W, 3]``.
        """
        if video_FHWC.dtype != np.uint8 or video_FHWC.ndim != 4 or video_FHWC.shape[3] != 3 or not video_FHWC.size:
            raise ValueError(f"need a uint8 video [F, H, W, 3]; got {video_FHWC.dtype} {video_FHWC.shape}")
        chosen = self.defaults.with_given(**settings)
        prompt = self.expand(instruction, source_prompt) if prompt is None else prompt
        frames = np.stack(list(self.stream(lambda: iter(video_FHWC), prompt, chosen, seed, progress)))
        return EditResult(frames, prompt, source_prompt, seed, chosen)

    def expand(self, instruction: str, source_prompt: str | None = None) -> str:
        """The edited prompt: by the nano world's grammar on a nano backbone, where it knows the instruction.

        Elsewhere, and for instructions that the grammar does not know, it is the text as typed.
        """
        prompt = apply_instruction(instruction, source_prompt) if self.backbone.name == "nano" else None
        return instruction if prompt is None else prompt

    def stream(
        self,
        open_frames: Opener,
        prompt: str,
        chosen: SamplingConfig | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> Iterator[np.ndarray]:
        """Edited frames of a video of any length, a few in memory at a time; only its latents are held throughout.

        Args:
            open_frames: called once to encode the video, and once more if the source's own pixels are to be kept.
            prompt: full description after the edit.
            chosen: the adapter's own if None.
            watch: shown every step's latents.

        Returns:
            uint8 ``[H, W, 3]`` frames, as many and as large as the source's.
        """
        first, frames = peeked(open_frames())
        own = first.shape[0], first.shape[1]
        chosen = self.fit_memory(chosen or self.defaults, *own)
        size = fit_size(*own, chosen.max_area, self.backbone.pixel_multiple)
        counted = Counted(frames)
        with self.placement.working(self.backbone.vae):
            source_BCFHW = torch.cat(list(self._encode(resized(counted, size))), dim=2)
        latents_BCFHW = self._denoised(source_BCFHW, prompt, chosen, seed, progress, watch)
        with self.placement.working(self.backbone.vae):
            edited = self._decode(latents_BCFHW, counted.count)
            if chosen.keep == 0:
                yield from resized(edited, own)
                return
            fitted = resized(open_frames(), size)
            yield from keep_source(zip(open_frames(), fitted, edited, strict=True), chosen.keep)

    def fit_memory(self, chosen: SamplingConfig, height: int, width: int) -> SamplingConfig:
        """The settings for a video of that size on this machine.

        Raises:
            UserError: ``memory`` is none of its choices.
        """
        backbone = self.backbone
        tall, wide = fit_size(height, width, chosen.max_area, backbone.pixel_multiple)
        length = -(-(chosen.max_frames - 1) // backbone.vae_temporal) + 1
        return self.placement.fit(chosen, length * tall * wide // backbone.pixel_multiple**2)

    def _denoised(
        self, source_BCFHW: Tensor, prompt: str, chosen: SamplingConfig, seed: int, progress, watch
    ) -> Tensor:
        backbone, device = self.backbone, self.placement.device
        with self.placement.working(backbone.text_encoder):
            texts_BTD = backbone.encode_text([prompt, ""] if chosen.guidance != 1 else [prompt])
        denoiser = Denoiser(backbone.transformer, self.method, backbone.shift, backbone.vae_temporal, chosen)
        with self.placement.working(backbone.transformer):
            return denoiser(source_BCFHW.to(device), texts_BTD.to(device), seed, progress, watch)

    def _encode(self, frames: Iterable[np.ndarray]) -> Iterator[Tensor]:
        group = self.backbone.vae_temporal
        parts = in_parts(frames, 1 + PART * group, PART * group)
        return self.backbone.encode_parts(to_model(whole_groups(part, group, n == 0)) for n, part in enumerate(parts))

    def _decode(self, latents_BCFHW: Tensor, frames: int) -> Iterator[np.ndarray]:
        done = 0
        for part_BCFHW in self.backbone.decode_parts(torch.split(latents_BCFHW, PART, dim=2)):
            yield from from_model(part_BCFHW)[: frames - done]
            done += part_BCFHW.shape[2]


def _installed(weights: Mapping[Path, float], transformer: Any) -> Method:
    methods: dict[Any, float] = {}
    for path, weight in weights.items():
        method = load_adapter(path, transformer)
        if len(weights) == 1 and weight == 1:
            return method
        method.detach()
        methods[method] = weight
    mixture = Mixture(methods)
    mixture.install(transformer)
    return mixture.requires_grad_(False).eval()
