"""Edit a video: resize to the model's size, encode, denoise, decode, and return it at its own size and length.

Shapes: B batch (one), C channels, F frames, H W pixels, T text tokens, D text width.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imvideoedit.common.bundled import adapter_path
from imvideoedit.edit_batch import EditBatch
from imvideoedit.editing.compositing import composite_source
from imvideoedit.editing.denoiser import Denoiser, Progress, StepCallback
from imvideoedit.editing.lora import fuse_lora
from imvideoedit.editing.offload import Placement
from imvideoedit.editing.prompts import expand
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.methods.adapter_file import load_adapter, read_header
from imvideoedit.methods.base import Method
from imvideoedit.methods.mixture import Mixture
from imvideoedit.video.geometry import fit_size, from_model, in_parts, pad_to_groups, resized, to_model
from imvideoedit.wan.backbone import Backbone, load_backbone
from imvideoedit.wan.kernels import NATIVE, choose_attention, compile_blocks
from imvideoedit.wan.locations import default_device, default_dtype

PART = 2  # latent frames encoded or decoded at a time
FrameSource = Callable[[], Iterable[np.ndarray]]
"""Gives a video's frames from the first on, uint8 ``[H, W, 3]``, at every call."""


@dataclass(frozen=True)
class EditResult:
    """An edited video ``[F, H, W, 3]`` uint8, of the source's shape, and how it was made."""

    frames: np.ndarray
    prompt: str
    source_prompt: str | None
    seed: int
    config: SamplingConfig


class EditPipeline:
    """Edits videos with a method installed in a backbone.

    Usage::

        pipeline = EditPipeline.from_pretrained()
        result = pipeline(video_FHWC, "make the red box blue")

    Args:
        backbone: loaded with all its parts.
        method: installed in the backbone's transformer.
        config: used where a call does not override it.
        placement: where the backbone's parts are while they work; all where they are now if None.

    Attributes:
        identity: hash of the adapter for edited files' metadata, see ``ModelOptions.identity``.
    """

    def __init__(
        self,
        backbone: Backbone,
        method: Method,
        config: SamplingConfig | None = None,
        placement: Placement | None = None,
    ) -> None:
        self.backbone, self.method, self.config = backbone, method, config or SamplingConfig()
        self.placement = placement or Placement(backbone, method, backbone.device, "full")
        self.identity = ""

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
                see :class:`imvideoedit.methods.mixture.Mixture`. The sampling config is the first one's.
            device: the GPU if there is one, else the CPU; that of a backbone that is loaded already.
            memory: ``auto`` for the first offload level that fits when the first edit begins; or one of
                :data:`imvideoedit.editing.model_options.OFFLOAD_LEVELS`.
            loras: of the backbone, with a weight each, such as few-step distillations.
            attention: backend by its name in diffusers, such as ``flash`` or ``sage``.
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
            # On the CPU first: whether all of it fits on the device is not known yet.
            backbone = load_backbone(backbone or name, revision, "cpu", default_dtype(where))
        else:
            where = backbone.device
        method = _installed(weights, backbone.transformer)
        for lora, weight in (loras or {}).items():
            fuse_lora(backbone.transformer, lora, weight)
        choose_attention(backbone.transformer, attention, where)
        if compile:
            compile_blocks(backbone.transformer, method.compile_units())
        config = SamplingConfig(**header.training.get("sampler", {}))
        return cls(backbone, method, config, Placement(backbone, method, where, memory))

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
            prompt: full description after the edit; made from the instruction if None, see
                :func:`imvideoedit.editing.prompts.expand`.
            source_prompt: full description before the edit, which helps to make the prompt.
            seed: of the noise.
            settings: values of :class:`SamplingConfig` that override the adapter's own, such as ``steps`` or ``keep``.

        Raises:
            UserError: a value is out of its range.
            ValueError: the video is not uint8 ``[F, H, W, 3]``.
        """
        if video_FHWC.dtype != np.uint8 or video_FHWC.ndim != 4 or video_FHWC.shape[3] != 3 or not video_FHWC.size:
            raise ValueError(f"need a uint8 video [F, H, W, 3]; got {video_FHWC.dtype} {video_FHWC.shape}")
        config = self.fit_memory(self.config.override(**settings), *video_FHWC.shape[1:3])
        nano = self.backbone.is_nano
        prompt = expand(instruction, video_FHWC, None, source_prompt, prompt=prompt, nano=nano).prompt
        frames = np.stack(list(self.stream(lambda: video_FHWC, prompt, config, seed, progress)))
        return EditResult(frames, prompt, source_prompt, seed, config)

    def fit_memory(self, config: SamplingConfig, height: int, width: int) -> SamplingConfig:
        """The config for a video of that size on this machine; at the first call, places the backbone's parts.

        Raises:
            UserError: ``memory`` is none of its choices.
        """
        backbone = self.backbone
        tall, wide = fit_size(height, width, config.max_area, backbone.pixel_multiple)
        length = -(-(config.max_frames - 1) // backbone.vae_temporal) + 1
        return self.placement.fit(config, length * tall * wide // backbone.pixel_multiple**2)

    def stream(
        self,
        open_frames: FrameSource,
        prompt: str,
        config: SamplingConfig,
        seed: int = 0,
        progress: Progress | None = None,
        on_step: StepCallback | None = None,
    ) -> Iterator[np.ndarray]:
        """Edited frames of a video of any length, a few in memory at a time; only its latents are held throughout.

        Args:
            open_frames: called once to encode the video, and twice more where the source's pixels are composited.
            prompt: full description after the edit.
            config: from :meth:`fit_memory`.
            progress, on_step: called after each pass and at each solver step; may raise to stop.

        Returns:
            uint8 ``[H, W, 3]`` frames, as many and as large as the source's.
        """
        backbone, placement = self.backbone, self.placement
        frames = iter(open_frames())
        first_HWC = next(frames)
        own = first_HWC.shape[0], first_HWC.shape[1]
        size = fit_size(*own, config.max_area, backbone.pixel_multiple)
        count = 0

        def counted() -> Iterator[np.ndarray]:
            nonlocal count
            for frame_HWC in chain([first_HWC], frames):
                count += 1
                yield frame_HWC

        with placement.working(backbone.vae):
            source_BCFHW = torch.cat(list(self._encode(resized(counted(), size))), dim=2)
        with placement.working(backbone.text_encoder):
            texts_BTD = backbone.encode_text([prompt, ""] if config.guidance != 1 else [prompt])
        denoiser = Denoiser(backbone.transformer, self.method, backbone.shift, backbone.vae_temporal, config)
        with placement.working(backbone.transformer):
            empty_TD = texts_BTD[1] if len(texts_BTD) > 1 else None
            batch = EditBatch(source_BCFHW, None, texts_BTD[:1], empty_TD=empty_TD).to(placement.device)
            latents_BCFHW = denoiser(batch, seed, progress, on_step)
        with placement.working(backbone.vae):
            edited = self._decode(latents_BCFHW, count)
            if config.keep == 0:
                yield from resized(edited, own)
                return
            views = zip(open_frames(), resized(open_frames(), size), edited, strict=True)
            yield from composite_source(views, config.keep)

    def _encode(self, frames: Iterable[np.ndarray]) -> Iterator[Tensor]:
        group = self.backbone.vae_temporal
        parts = in_parts(frames, 1 + PART * group, PART * group)
        return self.backbone.encode_parts(to_model(pad_to_groups(part, group, n == 0)) for n, part in enumerate(parts))

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
