"""An edit as a block of diffusers' ``ModularPipeline``: inputs and components declared, equal to ``EditPipeline``.

    pipe = EditBlocks("my.safetensors").init_pipeline("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
    pipe.load_components(dtype={"default": torch.bfloat16, "vae": torch.float32})
    videos = pipe(video=load_video("input.mp4"), instruction="turn it into noir style", output="videos")

``to_diffusers`` gives such a pipeline with the parts of one of ours, without loading them again.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    ModularPipeline,
    ModularPipelineBlocks,
    SchedulerMixin,
    WanTransformer3DModel,
)
from diffusers.modular_pipelines import ComponentSpec, InputParam, OutputParam
from PIL import Image
from transformers import AutoTokenizer, UMT5EncoderModel

from imvideoedit.common.bundled import adapter_path
from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import Input
from imvideoedit.editing.inputs import known_inputs
from imvideoedit.editing.job_inputs import FILE_INPUTS
from imvideoedit.editing.model_options import OFFLOAD_LEVELS
from imvideoedit.editing.offload import Placement
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.editing.sampling_config import HELP, RANGES, SamplingConfig
from imvideoedit.methods.adapter_header import read_header
from imvideoedit.wan.backbone import Backbone
from imvideoedit.wan.locations import shift_of

PARTS: dict[str, Any] = {
    "transformer": WanTransformer3DModel,
    "vae": AutoencoderKLWan,
    "text_encoder": UMT5EncoderModel,
    "tokenizer": AutoTokenizer,
    "scheduler": SchedulerMixin,
}
"""Components of a diffusers folder; of the scheduler only the flow shift is used."""
OUTPUT_TYPES = ("pil", "np", "pt")
_HINTS: dict[str, Any] = {"image": Image.Image, "video": list[Image.Image], "mask": Image.Image, "text": str}


class Adapter:
    """An adapter as a component: it is installed in the pipeline's transformer at the first edit.

    Args:
        path: of its file; None for one that is installed already.
        pipeline: that it is installed in.
    """

    def __init__(self, path: Path | None = None, pipeline: EditPipeline | None = None) -> None:
        self.path, self._pipeline = path, pipeline

    @classmethod
    def from_single_file(cls, path: str, **_: Any) -> "Adapter":
        """What ``load_components`` calls for a file; options of diffusers' loaders do not matter to it."""
        return cls(Path(path))

    def pipeline(self, components: Any) -> EditPipeline:
        """Our pipeline of the parts that diffusers' pipeline has now, on its device.

        Raises:
            UserError: a part is missing, or the adapter cannot be installed in the transformer.
        """
        found: dict[str, Any] = {name: getattr(components, name, None) for name in PARTS}
        if missing := [name for name, part in found.items() if part is None]:
            raise UserError(f"the pipeline has no {', '.join(missing)}; call load_components() or update_components()")
        shift = shift_of(found.pop("scheduler").config)
        device = found["transformer"].device
        if self._pipeline is None or self._pipeline.backbone.transformer is not found["transformer"]:
            self._pipeline = self._installed(Backbone("components", None, **found, shift=shift))
        pipeline = copy.copy(self._pipeline)  # which may be the user's own
        pipeline.backbone = replace(pipeline.backbone, **found, shift=shift)
        pipeline.placement = Placement(pipeline.backbone, pipeline.method, device, "full")
        return pipeline

    def _installed(self, backbone: Backbone) -> EditPipeline:
        if self.path is None:
            raise UserError("this pipeline's adapter is in another transformer; keep that one, or use EditBlocks(FILE)")
        if backbone.transformer.config.image_dim is not None:
            raise UserError(
                "this transformer reads an image's tokens, for which these blocks have no part; "
                "load it with EditPipeline.from_pretrained and use to_diffusers"
            )
        if self._pipeline is not None:
            self._pipeline.method.uninstall()
        return EditPipeline.from_pretrained(backbone, self.path, memory="full")


class EditBlocks(ModularPipelineBlocks):
    """One block that edits a video.

    Args:
        adapter: a file, or ``bundled``, whose header says what it takes besides video and text.
        inputs: what an installed method takes, instead of ``adapter``.

    Raises:
        UserError: the file is missing or damaged.
    """

    model_name = "imvideoedit"

    def __init__(self, adapter: Path | str = "bundled", inputs: Sequence[Input] | None = None) -> None:
        super().__init__()
        self._path = adapter_path(adapter) if inputs is None else None
        if self._path is not None:
            inputs = [Input(**declared) for declared in read_header(self._path).inputs]
        known = known_inputs(inputs or ())
        # Those that are not known, too: diffusers ignores what a block does not declare, where EditPipeline refuses it.
        self._known = {name: Input(name, "image", required=False) for name in FILE_INPUTS} | known

    @property
    def description(self) -> str:
        return "Edits every frame of a video as an instruction says, with an adapter in a frozen Wan."

    @property
    def expected_components(self) -> list[ComponentSpec]:
        parts = [ComponentSpec(name, kind, description=f"of the frozen model: {name}") for name, kind in PARTS.items()]
        where = {} if self._path is None else {"pretrained_model_name_or_path": str(self._path)}
        return [*parts, ComponentSpec("adapter", Adapter, description="what edits", **where)]

    @property
    def inputs(self) -> list[InputParam]:
        settings = [
            InputParam(each.name, description=f"{HELP[each.name]}; {RANGES[each.name][2]}; the adapter's own if None")
            if each.name in RANGES
            else InputParam(each.name, str, description=f"{HELP[each.name]}; the adapter's own if None")
            for each in fields(SamplingConfig)
        ]
        return [
            InputParam("video", list[Image.Image], required=True, description="frames; or uint8 [F, H, W, 3]"),
            InputParam("instruction", str, required=True, description="what to change"),
            InputParam("prompt", str, description="the scene after the edit; made from the instruction if None"),
            InputParam("source_prompt", str, description="the scene before the edit"),
            InputParam("seed", int, default=0, description="of the noise"),
            InputParam("progress", Callable, description="called with passes done and passes in all"),
            InputParam("output_type", str, default="pil", description=f"of the videos: {', '.join(OUTPUT_TYPES)}"),
            *(_declared(each) for each in self._known.values()),
            *settings,
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        videos = "a list of one edited video: PIL images, or an array [1, F, H, W, 3], a tensor [1, F, 3, H, W] in 0..1"
        return [
            OutputParam("videos", list[list[Image.Image]], description=videos),
            OutputParam("used_prompt", str, description="that the model read"),
        ]

    def __call__(self, components: ModularPipeline, state: Any) -> tuple[ModularPipeline, Any]:
        """Edit, as ``EditPipeline`` does.

        Raises:
            UserError: what ``EditPipeline`` raises, a component is missing, or there is no such output type.
        """
        block_state = self.get_block_state(state)
        values = block_state.as_dict()
        if values["output_type"] not in OUTPUT_TYPES:
            raise UserError(f"output_type is {values['output_type']!r}; choose one of {', '.join(OUTPUT_TYPES)}")
        adapter = components.adapter
        if adapter is None:
            raise UserError("the pipeline has no adapter; call load_components()")
        result = adapter.pipeline(components)(
            _array(values["video"], "video"),
            values["instruction"],
            values["prompt"],
            values["source_prompt"],
            values["seed"],
            values["progress"],
            {name: _array(values[name], each.kind) for name, each in self._known.items() if values[name] is not None},
            **{each.name: values[each.name] for each in fields(SamplingConfig)},
        )
        block_state.videos, block_state.used_prompt = _videos(result.frames, values["output_type"]), result.prompt
        self.set_block_state(state, block_state)
        return components, state


def to_diffusers(pipeline: EditPipeline) -> ModularPipeline:
    """A pipeline of diffusers with the parts of ours, which it shares.

    Raises:
        UserError: ours moves them to the device block by block, which diffusers' pipeline does not know of.
    """
    backbone = pipeline.backbone
    if pipeline.placement.level in OFFLOAD_LEVELS[2:]:
        raise UserError(f"this pipeline is at offload level {pipeline.placement.level}; load it with memory full")
    modular = ModularPipeline(blocks=EditBlocks(inputs=pipeline.method.inputs))
    modular.update_components(
        transformer=backbone.transformer,
        vae=backbone.vae,
        text_encoder=backbone.text_encoder,
        tokenizer=backbone.tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=backbone.shift),
        adapter=Adapter(pipeline=pipeline),
    )
    return modular


def _declared(declared: Input) -> InputParam:
    hint = _HINTS[declared.kind]
    return InputParam(declared.name, hint, required=declared.required, description=f"a {declared.kind}")


def _array(value: Any, kind: str) -> Any:
    """What ``EditPipeline`` takes of PIL images or lists of them; anything else as it is."""
    if isinstance(value, Image.Image):
        colours_HWC = np.asarray(value.convert("RGB"))
        return colours_HWC.max(axis=2) if kind == "mask" else colours_HWC
    if isinstance(value, list | tuple) and value and all(isinstance(each, Image.Image) for each in value):
        return np.stack([_array(each, kind) for each in value])
    return value


def _videos(frames: np.ndarray, kind: str) -> Any:
    """A batch of one video as diffusers' pipelines give it."""
    if kind == "pil":
        return [[Image.fromarray(frame) for frame in frames]]
    unit = frames[None].astype(np.float32) / 255
    return unit if kind == "np" else torch.from_numpy(unit).movedim(-1, 2)
