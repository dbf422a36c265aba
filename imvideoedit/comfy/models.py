"""A base in ComfyUI's cache, and the adapters that take turns in it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from imvideoedit.comfy import host
from imvideoedit.editing.edit_file import quiet_loading
from imvideoedit.editing.fitted_clip import FittedClip
from imvideoedit.editing.model_options import OFFLOAD_LEVELS
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.wan.backbone import Backbone, load_backbone
from imvideoedit.wan.locations import default_dtype


@dataclass(frozen=True)
class Choice:
    """An adapter and how it runs.

    Attributes:
        path: of its file.
        content: a hash of the file, so that one that was trained again is another choice.
        memory, attention: as in ``EditPipeline.from_pretrained``.
    """

    path: Path
    content: str
    memory: str
    attention: str


class Base:
    """A frozen model, loaded once, with one adapter at a time installed in it.

    Between edits all of it is in the computer's memory; in an edit it goes to ``device`` as the offload level says.

    Args:
        name: as ``load_backbone`` takes it.

    Raises:
        UserError: it is missing or cannot be loaded.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name, self.device = name, device
        self._installed: tuple[Choice, EditPipeline] | None = None
        self._backbone = self._load()

    def pipeline(self, choice: Choice) -> EditPipeline:
        """The pipeline of an adapter, which takes the place of the one before it.

        Raises:
            UserError: the adapter cannot be loaded, or is another base's.
        """
        if self._installed is None or self._installed[0] != choice:
            self._release()
            pipeline = EditPipeline.from_pretrained(
                self._backbone, choice.path, str(self.device), choice.memory, attention=choice.attention
            )
            self._installed = choice, pipeline
        return self._installed[1]

    def _release(self) -> None:
        """Take the installed adapter out; where it leaves changed weights or hooks, load the base again."""
        if self._installed is None:
            return
        pipeline, self._installed = self._installed[1], None
        if pipeline.method.trains_backbone or pipeline.placement.level in OFFLOAD_LEVELS[2:]:
            del pipeline, self._backbone  # before there are two
            self._backbone = self._load()
        else:
            pipeline.method.uninstall()

    def _load(self) -> Backbone:
        quiet_loading()
        return load_backbone(self.name, None, "cpu", default_dtype(self.device))


@dataclass(frozen=True)
class Adapter:
    """What the node that loads an adapter gives to those that edit."""

    base: Base
    choice: Choice

    def pipeline(self) -> EditPipeline:
        """As :meth:`Base.pipeline`."""
        return self.base.pipeline(self.choice)

    def fitted(self) -> FittedClip | None:
        """The one clip that the adapter was fitted to; None of one that was trained on many."""
        return FittedClip.of(self.choice.path)


@contextlib.contextmanager
def on_device(pipeline: EditPipeline) -> Iterator[None]:
    """Inside, the device is the pipeline's; after it, its parts are in the computer's memory, as ComfyUI's own are."""
    host.free_device()
    _move(pipeline, pipeline.placement.device)
    try:
        yield
    finally:
        _move(pipeline, torch.device("cpu"))
        host.empty_cache()


def _move(pipeline: EditPipeline, device: torch.device) -> None:
    """Move what stays on the device between edits: at other levels the parts go and come by themselves."""
    if pipeline.placement.level == OFFLOAD_LEVELS[0]:
        backbone = pipeline.backbone
        for part in (backbone.transformer, backbone.text_encoder, backbone.vae, *pipeline.method.apart()):
            if part is not None:
                part.to(device)
