"""An edit while it is made: its progress, a live preview, and cancelling."""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from imvideoedit.editing.job import Job
from imvideoedit.editing.prompts import Expansion
from imvideoedit.video.geometry import from_model
from imvideoedit.wan.backbone import Backbone

PREVIEW_SECONDS = 0.5  # least time between two previews


class Cancelled(Exception):
    """The edit was cancelled."""


@dataclass(eq=False)
class Edit:
    """A submitted edit; the queue's thread writes it, the page reads it.

    Attributes:
        tab: the open page that submitted it; closing it cancels the edit.
        browser: whose history the result belongs to.
        state: ``waiting``, ``running``, ``done``, ``failed`` or ``cancelled``.
        phase: for the page.
        share: of the model's passes that are done, in [0, 1].
        preview: the latest estimate of the middle frame, uint8 ``[H, W, 3]``.
        problem: one line, if it failed.
        prompts, thumbnail: if it is done.
        notes: what the result does not keep of what was given, or how something was understood, a line each.
    """

    job: Job
    tab: str
    browser: str
    state: str = "waiting"
    phase: str = "Reading the video"
    share: float = 0.0
    begun: float = field(default_factory=time.monotonic)
    preview: np.ndarray | None = None
    problem: str = ""
    prompts: Expansion | None = None
    thumbnail: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)
    cancel: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)

    @property
    def comparison(self) -> Path:
        """Source and result side by side, for a browser."""
        return self.job.output.with_name("comparison.mp4")

    def check(self) -> None:
        """Raise :class:`Cancelled` if the edit was cancelled."""
        if self.cancel.is_set():
            raise Cancelled

    def progress(self, done: int, total: int) -> None:
        """See :data:`imvideoedit.editing.denoiser.Progress`."""
        self.check()
        if self.share == 0:
            self.begun = time.monotonic()
        self.phase, self.share = "Editing", done / total

    def on_frame(self, phase: str, count: int) -> None:
        """See :data:`imvideoedit.editing.edit_file.FrameCallback`."""
        self.check()
        if phase == "writing":
            self.phase = f"Writing frame {count}"

    def left(self) -> float | None:
        """Seconds that the model still needs, if known."""
        if not 0 < self.share < 1 or time.monotonic() - self.begun < 1:
            return None
        return (time.monotonic() - self.begun) / self.share * (1 - self.share)


class LivePreview:
    """A step callback that shows an edit's middle frame while it becomes clear."""

    def __init__(self, edit: Edit, backbone: Backbone) -> None:
        self._edit, self._backbone, self._shown = edit, backbone, 0.0

    def __call__(self, x_BCFHW: Tensor, sigma: float, v_BCFHW: Tensor) -> None:
        if time.monotonic() - self._shown < PREVIEW_SECONDS:
            return
        middle = slice(x_BCFHW.shape[2] // 2, x_BCFHW.shape[2] // 2 + 1)
        # The clean latents that the velocity points to: x - σ v
        (video_BCFHW,) = self._backbone.decode_parts([x_BCFHW[:, :, middle] - sigma * v_BCFHW[:, :, middle]])
        self._edit.preview = from_model(video_BCFHW)[-1]
        self._shown = time.monotonic()
