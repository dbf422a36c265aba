"""Edit a video: resize to the model's size, encode, denoise, decode, and return it at its own size and length.

Shapes: B batch (one), C channels, F frames, H W pixels, T text tokens, D text width.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from imvideoedit.edit_batch import EditBatch
from imvideoedit.editing.chosen_base import load_chosen
from imvideoedit.editing.compositing import composite
from imvideoedit.editing.conditions import ConditionEncoder, decode
from imvideoedit.editing.denoiser import Denoiser, Progress, StepCallback
from imvideoedit.editing.hub import Shared
from imvideoedit.editing.inputs import FrameSource, Sources, check_names, from_arrays, known_inputs
from imvideoedit.editing.lora import fuse_lora
from imvideoedit.editing.offload import Placement
from imvideoedit.editing.prompts import expand
from imvideoedit.editing.sampling_config import SamplingConfig, adapters_own
from imvideoedit.methods.adapter_header import read_header
from imvideoedit.methods.adapter_hub import chosen
from imvideoedit.methods.base import Method
from imvideoedit.methods.mixture import load_adapters, parts_for
from imvideoedit.video.geometry import fit_size
from imvideoedit.wan.backbone import Backbone
from imvideoedit.wan.kernels import NATIVE, choose_attention, compile_blocks
from imvideoedit.wan.locations import default_device, default_dtype
from imvideoedit.wan.token_split import processes_of


@dataclass(frozen=True)
class EditResult:
    """An edited video ``[F, H, W, 3]`` uint8, of the source's shape, and how it was made."""

    frames: np.ndarray
    prompt: str
    source_prompt: str | None
    seed: int
    config: SamplingConfig


class EditPipeline(Shared):
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
        identity, contents: hashes of the adapter's tensors and of all of its files, for edited files' metadata, see
            :class:`imvideoedit.editing.model_options.ModelOptions`.
        title: of the method, for errors, such as ``the adapter my.safetensors``.
        completed: gives a job what its adapter knows of the clip that it was fitted to.
        first_frames: a ``FirstFrameEditor`` for edited files that lack a frame that the method needs, or None.
        sharing: of a denoiser, its batch and its seed, makes a context in which other processes run its passes, too.
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
        self.identity, self.contents, self.title = "", "", f"the method {method.name}"
        self.first_frames: Any = None
        self.completed: Callable[[Any], Any] = lambda job: job
        self.sharing: Callable[..., AbstractContextManager[None]] = lambda *_: nullcontext()

    @classmethod
    def from_pretrained(
        cls,
        backbone: Backbone | str | None = None,
        adapter: Path | str | Mapping[Path | str, float] | None = None,
        device: str | None = None,
        memory: str = "auto",
        loras: Mapping[Path, float] | None = None,
        attention: str = NATIVE,
        compile: bool = False,
        quantization: str | None = None,
    ) -> "EditPipeline":
        """Load an adapter, or several, and the backbone it was trained in.

        Args:
            backbone: loaded already, or ``base`` of :func:`imvideoedit.editing.chosen_base.load_chosen`; so is
                ``quantization``. The one that the adapter names if None. An adapter in its place is taken for one,
                where none is given: ``EditPipeline.from_pretrained("user/adapter")``.
            adapter: a file, a folder, ``user/name`` on the Hub, or ``bundled`` (if None) for the nano world's, see
                :func:`imvideoedit.methods.adapter_hub.find_adapter`; or several with a weight each, see
                :func:`imvideoedit.methods.mixture.load_adapters`. The sampling config is the first one's.
            device: the GPU if there is one, else the CPU; that of a backbone that is loaded already, if None.
            memory: see :class:`imvideoedit.editing.offload.Placement`.
            loras: of the backbone, with a weight each, such as few-step distillations.
            attention: backend by its name in diffusers, such as ``flash`` or ``sage``.
            compile: the blocks, by ``torch.compile``; the first pass of each size then takes minutes.

        Raises:
            UserError: file missing or damaged, backbone missing or not the adapter's, no such attention or memory.
        """
        backbone, weights = chosen(backbone, adapter)
        header = read_header(next(iter(weights)))
        if not isinstance(backbone, Backbone):
            where = default_device(device)
            backbone = load_chosen(header, backbone, quantization, default_dtype(where), parts_for(weights))
        else:
            where = backbone.device if device is None else default_device(device)
        method = load_adapters(weights, backbone.transformer, backbone.parameter_hash(), backbone.title)
        for lora, weight in (loras or {}).items():
            fuse_lora(backbone.transformer, lora, weight)
        choose_attention(backbone.transformer, attention, where)
        if compile:
            compile_blocks(backbone.transformer, method.compile_units())
        config = adapters_own(header.training, next(iter(weights)))
        pipeline = cls(backbone, method, config, Placement(backbone, method, where, memory))
        pipeline.came_from(weights, loras or {})
        return pipeline

    def __call__(
        self,
        video_FHWC: np.ndarray,
        instruction: str,
        prompt: str | None = None,
        source_prompt: str | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        inputs: Mapping[str, np.ndarray | str] | None = None,
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
            inputs: what the method declares, by name: an image uint8 ``[H, W, 3]``, a video uint8 ``[F, H, W, 3]``, a
                mask ``[H, W]`` or ``[F, H, W]`` of any number type, which counts where it is above half of its largest
                value, a text. Any method takes ``mask``: outside it, and of ``mask_feather`` pixels around it, every
                pixel stays the source's.
            settings: values of :class:`SamplingConfig` that override the adapter's own, such as ``steps`` or ``keep``.

        Raises:
            UserError: a value is out of its range; an input is missing, unknown or does not fit the video.
            ValueError: the video is not uint8 ``[F, H, W, 3]``, or an input is not what its kind has.
        """
        if video_FHWC.dtype != np.uint8 or video_FHWC.ndim != 4 or video_FHWC.shape[3] != 3 or not video_FHWC.size:
            raise ValueError(f"need a uint8 video [F, H, W, 3]; got {video_FHWC.dtype} {video_FHWC.shape}")
        self.check_inputs(inputs or {})
        given = from_arrays(known_inputs(self.method.inputs), inputs or {}, len(video_FHWC))
        config = self.fit_memory(self.config.override(**settings), *video_FHWC.shape[1:3])
        prompt = expand(instruction, video_FHWC, None, source_prompt, prompt=prompt, nano=self.has_grammar).prompt
        frames = np.stack(list(self.stream(lambda: video_FHWC, prompt, config, seed, progress, None, given)))
        return EditResult(frames, prompt, source_prompt, seed, config)

    @property
    def has_grammar(self) -> bool:
        """Whether the nano world's grammar makes prompts of instructions; not where the method reads instructions."""
        return self.backbone.is_nano and not self.method.reads_instructions

    def check_inputs(self, given: Collection[str]) -> None:
        """See that an edit has the inputs that the method needs, and none that it does not know, by name.

        Raises:
            UserError: one is missing or unknown.
        """
        check_names(self.method.inputs, given, self.title)

    def fit_memory(self, config: SamplingConfig, height: int, width: int) -> SamplingConfig:
        """The config for a video of that size on this machine; at the first call, places the backbone's parts.

        Raises:
            UserError: the video's frames are too small.
        """
        backbone = self.backbone
        tall, wide = fit_size(height, width, config.max_area, backbone.pixel_multiple)
        length = -(-(config.max_frames - 1) // backbone.vae_temporal) + 1
        length = -(-length // processes_of(backbone.transformer))
        return self.placement.fit(config, length * tall * wide // backbone.pixel_multiple**2, tall * wide)

    def stream(
        self,
        open_frames: FrameSource,
        prompt: str,
        config: SamplingConfig,
        seed: int = 0,
        progress: Progress | None = None,
        on_step: StepCallback | None = None,
        inputs: Sources | None = None,
    ) -> Iterator[np.ndarray]:
        """Edit a video that comes and goes frame by frame; only latents, and what a method reads raw, are held.

        Args:
            open_frames: called once to encode the video, once for each video that the method derives of it, once for a
                method with a reader, and up to twice more where the source's pixels are composited.
            prompt: full description after the edit.
            config: from :meth:`fit_memory`.
            progress, on_step: called after each pass and at each solver step; may raise to stop.
            inputs: by name; see :data:`imvideoedit.editing.inputs.FrameSource`.

        Returns:
            uint8 ``[H, W, 3]`` frames, as many and as large as the source's.

        Raises:
            UserError: an input is missing, unknown, or does not fit the video.
        """
        backbone, placement, given = self.backbone, self.placement, dict(inputs or {})
        self.check_inputs(given)
        frames = iter(open_frames())
        first_HWC = next(frames)
        own = (first_HWC.shape[0], first_HWC.shape[1])
        size = fit_size(*own, config.max_area, backbone.pixel_multiple)
        encoder = ConditionEncoder(backbone, own, size)
        encoder.check_sizes(known_inputs(self.method.inputs), given)
        declared = [each for each in self.method.inputs if each.name in given]
        with placement.working(backbone.vae):
            source_BCFHW, count = encoder.latents(chain([first_HWC], frames))
            conditions = encoder.conditions(declared, given, count)
            conditions |= encoder.derived(self.method, declared, given, open_frames, count)
        with placement.working(backbone.text_encoder):
            texts = [self.method.prompt(text) for text in ((prompt, "") if config.guidance != 1 else (prompt,))]
            texts_BTD = encoder.prompts(self.method, texts, placement.device, declared, given, open_frames, count)
            conditions |= encoder.texts(declared, given)
        keep = placement.plan(source_BCFHW, config)
        denoiser = Denoiser(backbone.transformer, self.method, backbone.shift, backbone.vae_temporal, config, keep)
        empty_TD = texts_BTD[1] if len(texts_BTD) > 1 else None
        batch = EditBatch(source_BCFHW, None, texts_BTD[:1], conditions, empty_TD=empty_TD)
        with placement.working(backbone.transformer), self.sharing(denoiser, batch, seed):
            latents_BCFHW = denoiser(batch.to(placement.device), seed, progress, on_step)
        with placement.working(backbone.vae):
            edited = decode(backbone, latents_BCFHW, count)
            shares = encoder.shares(given, count, config.mask_feather)
            yield from composite(open_frames, edited, own, size, config.keep, shares)
