"""The nodes that load a base, load an adapter, set how it is sampled, and edit; and the list of all of them.

ComfyUI reads what a node takes, gives and is called by from its class; see its ``nodes.py``.
"""

from typing import Any, ClassVar

import xxhash
from torch import Tensor

from imvideoedit.comfy import host
from imvideoedit.comfy.edit import edit
from imvideoedit.comfy.media import outside_inference
from imvideoedit.comfy.models import Adapter, Base, Choice
from imvideoedit.comfy.save import SaveEdit
from imvideoedit.common.bundled import ADAPTER
from imvideoedit.common.errors import UserError
from imvideoedit.common.files import content_hash
from imvideoedit.editing.model_options import OFFLOAD_LEVELS
from imvideoedit.editing.sampling_config import HELP, QUALITIES, RANGES, SOLVERS, SamplingConfig
from imvideoedit.wan.kernels import NATIVE
from imvideoedit.wan.locations import NANO_IMAGE_TO_VIDEO, WAN_5B_HUB, WAN_14B_HUB

BASE, MODEL, SETTINGS = "IMVIDEOEDIT_BASE", "IMVIDEOEDIT_ADAPTER", "IMVIDEOEDIT_SETTINGS"  # types of links
CATEGORY = "imvideoedit"
NAMED = ("nano", NANO_IMAGE_TO_VIDEO, "wan_1_3b", WAN_14B_HUB, WAN_5B_HUB)  # bases that need no folder here
BUNDLED = "bundled"
OWN = -1  # in a setting: the adapter's own
OWN_WORDS = "adapter's own"
GREATEST_SEED = 2**64 - 1
"""Largest number that ComfyUI's own nodes take for one."""
Inputs = dict[str, dict[str, tuple[Any, ...]]]


class LoadBase:
    """Loads a frozen text-to-video model."""

    CATEGORY: ClassVar[str] = CATEGORY
    DESCRIPTION: ClassVar[str] = "Loads the frozen model that an adapter was trained in."
    FUNCTION: ClassVar[str] = "load"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = (BASE,)
    RETURN_NAMES: ClassVar[tuple[str, ...]] = ("base",)

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        tooltip = (
            "nano edits the small test world; nano_image_to_video is for what imvideoedit-fit makes there. wan_1_3b is "
            "Wan2.1-T2V-1.3B, from the folder in IMVIDEOEDIT_WAN or the Hugging Face hub. Others: folders of diffusers "
            "pipelines in models/diffusers."
        )
        return {"required": {"base": ([*NAMED, *host.base_folders()], {"default": NAMED[0], "tooltip": tooltip})}}

    @classmethod
    def IS_CHANGED(cls, base: str) -> str:
        """Changes with the files of a folder: their names, sizes and times."""
        digest = xxhash.xxh3_64()
        if (folder := host.base_folders().get(base)) is not None and base not in NAMED:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                stat = path.stat()
                digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    @outside_inference
    def load(self, base: str) -> tuple[Base]:
        """Load it into the computer's memory."""
        name = base if base in NAMED else str(host.base_folders().get(base, base))
        return (Base(name, host.device()),)


class LoadAdapter:
    """Installs a trained adapter in a base."""

    CATEGORY: ClassVar[str] = CATEGORY
    DESCRIPTION: ClassVar[str] = "Loads an adapter from models/imvideoedit into the base that it was trained in."
    FUNCTION: ClassVar[str] = "load"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = (MODEL,)
    RETURN_NAMES: ClassVar[tuple[str, ...]] = ("adapter",)

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        levels = "Where the model is while it works. auto: the first of full, model, group and low that fits."
        kernels = "Attention as diffusers names it: native, flash, _flash_3, sage, xformers, ..., where installed."
        return {
            "required": {
                "base": (BASE, {"tooltip": "The model that the adapter was trained in."}),
                "adapter": (
                    [BUNDLED, *host.adapter_names()],
                    {"default": BUNDLED, "tooltip": "A file in models/imvideoedit; bundled is the one for nano."},
                ),
                "memory": (["auto", *OFFLOAD_LEVELS], {"default": "auto", "tooltip": levels}),
                "attention": ("STRING", {"default": NATIVE, "tooltip": kernels}),
            }
        }

    @classmethod
    def IS_CHANGED(cls, adapter: str, **_: Any) -> str:
        """Changes with the file's content."""
        return _choice(adapter, "", "").content

    @outside_inference
    def load(self, base: Base, adapter: str, memory: str, attention: str) -> tuple[Adapter]:
        """Install it, so that what is wrong with it shows here."""
        loaded = Adapter(base, _choice(adapter, memory, attention))
        loaded.pipeline()
        return (loaded,)


class EditSettings:
    """Overrides how an adapter is sampled."""

    CATEGORY: ClassVar[str] = CATEGORY
    DESCRIPTION: ClassVar[str] = f"How an edit is sampled. What is {OWN} is the adapter's own."
    FUNCTION: ClassVar[str] = "collect"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = (SETTINGS,)
    RETURN_NAMES: ClassVar[tuple[str, ...]] = ("settings",)

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        solver = ([OWN_WORDS, *SOLVERS], {"default": OWN_WORDS, "tooltip": HELP["solver"]})
        return {"required": {name: _number(name) for name in RANGES} | {"solver": solver}}

    def collect(self, **values: Any) -> tuple[dict[str, Any]]:
        """The values that are given; all are checked here, so that a wrong one shows on this node."""
        given = {name: value for name, value in values.items() if value not in (OWN, OWN_WORDS)}
        SamplingConfig().override(**given)
        return (given,)


class Edit:
    """Edits a video with an instruction."""

    CATEGORY: ClassVar[str] = CATEGORY
    DESCRIPTION: ClassVar[str] = "Edits every frame of a video as the instruction says."
    FUNCTION: ClassVar[str] = "edit"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("IMAGE", "STRING")
    RETURN_NAMES: ClassVar[tuple[str, ...]] = ("video", "prompt")

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        prompt = "The full description of the scene after the edit; left empty, it is made from the instruction."
        source = "The full description of the scene before the edit; may be empty."
        mask = "Where the edit may be; outside it every pixel stays. One for all frames, or one for each. Any adapter."
        text = {"default": "", "multiline": True}
        return {
            "required": {
                "adapter": (MODEL, {}),
                "video": ("IMAGE", {"tooltip": "The frames to edit; any size and number."}),
                "instruction": ("STRING", {**text, "tooltip": 'What to change, such as "make the red box blue".'}),
                "quality": (list(QUALITIES), {"default": "best", "tooltip": "draft and standard take fewer steps."}),
                "seed": (
                    "INT",
                    {"default": 0, "min": 0, "max": GREATEST_SEED, "control_after_generate": True, "tooltip": "Noise."},
                ),
            },
            "optional": {
                "prompt": ("STRING", {**text, "tooltip": prompt}),
                "source_prompt": ("STRING", {**text, "tooltip": source}),
                "first_frame": ("IMAGE", {"tooltip": "The first frame after the edit, for adapters that take it."}),
                "mask": ("MASK", {"tooltip": mask}),
                "reference": ("IMAGE", {"tooltip": "What the edit shall show, for adapters that take it."}),
                "settings": (SETTINGS, {"tooltip": "From the node with settings; else the adapter's own."}),
            },
        }

    @outside_inference
    def edit(self, adapter: Adapter, video: Tensor, instruction: str, **options: Any) -> tuple[Tensor, str]:
        """The edited frames, and the prompt that was used."""
        return edit(adapter, video, instruction, **options)


def _choice(adapter: str, memory: str, attention: str) -> Choice:
    path = ADAPTER if adapter == BUNDLED else host.adapter_path(adapter)
    if path is None:
        raise UserError(f"there is no adapter {adapter} in ComfyUI's models/{host.ADAPTERS}; copy it there, or choose")
    return Choice(path, content_hash(path), memory, attention)


def _number(name: str) -> tuple[Any, ...]:
    """A setting's type, and what ComfyUI shows of it."""
    low, high, words = RANGES[name]
    kind = "INT" if isinstance(getattr(SamplingConfig(), name), int) else "FLOAT"
    steps = {} if kind == "INT" else {"step": 0.05, "round": 0.001}
    tooltip = f"{HELP[name]}; {words}. {OWN}: the adapter's own."
    return (kind, {"default": OWN, "min": OWN, "max": high, **steps, "tooltip": tooltip})


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "ImVideoEditLoadBase": LoadBase,
    "ImVideoEditLoadAdapter": LoadAdapter,
    "ImVideoEditSettings": EditSettings,
    "ImVideoEdit": Edit,
    "ImVideoEditSave": SaveEdit,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "ImVideoEditLoadBase": "Load Edit Base",
    "ImVideoEditLoadAdapter": "Load Edit Adapter",
    "ImVideoEditSettings": "Edit Settings",
    "ImVideoEdit": "Edit Video",
    "ImVideoEditSave": "Save Edited Video",
}
