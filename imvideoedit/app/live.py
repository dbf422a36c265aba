"""An edit while it is made: how far it is, what it looks like so far, and a way to stop it."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from imvideoedit.editing.denoiser import Progress, Watch
from imvideoedit.editing.jobs import Job
from imvideoedit.editing.pipeline import EditPipeline, Opener
from imvideoedit.editing.prompts import Expansion
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.video.geometry import from_model

PREVIEW_SECONDS = 0.5  # between two previews at least


class Cancelled(Exception):
    """The edit is not wanted any more."""


@dataclass(eq=False)
class Edit:
    """One edit that was asked for; its thread writes, the page reads.

    Attributes:
        tab: the open page that asked for it; closing it cancels the edit.
        browser: whose history the result belongs to.
        state: ``waiting``, ``running``, ``done``, ``failed`` or ``cancelled``.
        phase: what is being done, in words.
        share: of the model's work that is done, in [0, 1].
        preview: the latest estimate of the middle frame, uint8 ``[H, W, 3]``.
        problem: one line, where it failed.
        texts, thumbnail: as used, and what the result looks like, where it is done.
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
    texts: Expansion | None = None
    thumbnail: np.ndarray | None = None
    cancel: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)

    @property
    def comparison(self) -> Path:
        """Source and result beside each other, for a browser."""
        return self.job.output.with_name("comparison.mp4")

    def check(self) -> None:
        """Go on, or not.

        Raises:
            Cancelled: it is not wanted any more.
        """
        if self.cancel.is_set():
            raise Cancelled

    def progress(self, done: int, total: int) -> None:
        """As :data:`imvideoedit.editing.pipeline.Progress`; raises as :meth:`check`."""
        self.check()
        if self.share == 0:
            self.begun = time.monotonic()
        self.phase, self.share = "Editing", done / total

    def left(self) -> float | None:
        """Seconds that the model still needs, if they can be told."""
        if not 0 < self.share < 1 or time.monotonic() - self.begun < 1:
            return None
        return (time.monotonic() - self.begun) / self.share * (1 - self.share)


class Watched(EditPipeline):
    """A pipeline that shows an edit's middle frame while it becomes clear, and stops when the edit is cancelled."""

    def __init__(self, pipeline: EditPipeline, edit: Edit) -> None:
        super().__init__(pipeline.backbone, pipeline.method, pipeline.defaults, pipeline.placement)
        self._edit, self._shown = edit, 0.0

    def stream(
        self,
        open_frames: Opener,
        prompt: str,
        chosen: SamplingConfig | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> Iterator[np.ndarray]:
        """As :meth:`EditPipeline.stream`.

        Raises:
            Cancelled: between any two frames or steps.
        """

        def checked() -> Iterator[np.ndarray]:
            for frame_HWC in open_frames():
                self._edit.check()
                yield frame_HWC

        edited = super().stream(checked, prompt, chosen, seed, progress, watch or self._show)
        for number, frame_HWC in enumerate(edited, 1):
            self._edit.check()
            self._edit.phase = f"Writing frame {number}"
            yield frame_HWC

    def _show(self, x_BCFHW: Tensor, sigma: float, v_BCFHW: Tensor) -> None:
        """The clean latents that the velocity points to are shown now and then."""
        if time.monotonic() - self._shown < PREVIEW_SECONDS:
            return
        middle = slice(x_BCFHW.shape[2] // 2, x_BCFHW.shape[2] // 2 + 1)
        (video_BCFHW,) = self.backbone.decode_parts([x_BCFHW[:, :, middle] - sigma * v_BCFHW[:, :, middle]])
        self._edit.preview = from_model(video_BCFHW)[-1]
        self._shown = time.monotonic()
