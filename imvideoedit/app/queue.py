"""Edits for the page: one at a time, in the order they came, within its limits."""

import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import torch

from imvideoedit.app.frames import frame_pair, write_comparison
from imvideoedit.app.live import Cancelled, Edit, Watched
from imvideoedit.common.errors import UserError
from imvideoedit.common.web import MEGABYTE
from imvideoedit.editing.edit_file import edit_file
from imvideoedit.editing.jobs import Job
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.video.display import thumbnail
from imvideoedit.video.reader import Clip, VideoInfo

LINE = 20  # edits that wait or run, at most
KEPT = 100  # results that are kept, over all browsers


@dataclass(frozen=True)
class Limits:
    """What the page takes."""

    megabytes: float
    """Of a file, at most."""
    seconds: float
    """Of the part of a video that is edited, at most."""


class Desk:
    """Takes edits and makes them one at a time, in a thread of its own.

    Args:
        pipeline: that edits; used by one edit at a time.
        identity: of the model it was loaded from.
        limits: of what is taken.
    """

    def __init__(self, pipeline: EditPipeline, identity: str, limits: Limits) -> None:
        self.pipeline, self.identity, self.limits = pipeline, identity, limits
        self._line: list[Edit] = []
        self._results: list[Edit] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, edit: Edit) -> None:
        """Put an edit at the end of the line.

        Raises:
            UserError: the line is full, or the same tab's last edit is in it.
        """
        with self._changed:
            if any(other.tab == edit.tab for other in self._line):
                raise UserError("an edit of yours is running or waiting; cancel it, or wait for its end")
            if len(self._line) >= LINE:
                raise UserError("too many edits are waiting; try again in a while")
            self._line.append(edit)
            self._changed.notify_all()

    def before(self, edit: Edit) -> int:
        """Edits that come before this one."""
        with self._changed:
            return self._line.index(edit) if edit in self._line else 0

    def cancel(self, tab: str | None) -> None:
        """Stop what a tab has running or waiting; of all tabs if None."""
        with self._changed:
            for edit in self._line:
                if tab in (None, edit.tab):
                    edit.cancel.set()
            for edit in [edit for edit in self._line[1:] if edit.cancel.is_set()]:  # the first is the worker's
                self._line.remove(edit)
                edit.state = "cancelled"
                edit.finished.set()

    def history(self, browser: str) -> list[Edit]:
        """A browser's results, the latest first."""
        with self._changed:
            return [edit for edit in reversed(self._results) if edit.browser == browser]

    def close(self) -> None:
        """Cancel everything and wait some seconds for the thread's end."""
        self.cancel(None)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=10)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._line or self._closed)
                if self._closed:
                    return
                edit = self._line[0]
            state = self._outcome(edit)
            with self._changed:
                self._line.remove(edit)
                if state == "done":
                    self._keep(edit)
                edit.state = state
            edit.finished.set()

    def _keep(self, edit: Edit) -> None:
        self._results.append(edit)
        for old in self._results[:-KEPT]:
            old.comparison.unlink(missing_ok=True)
            old.job.output.unlink(missing_ok=True)
        self._results = self._results[-KEPT:]

    def _outcome(self, edit: Edit) -> str:
        """Make an edit; the state it ends in."""
        edit.state = "running"
        try:
            edit.check()
            edit.texts = edit_file(Watched(self.pipeline, edit), edit.job, self.identity, edit.progress)
            edit.phase = "Preparing the comparison"
            edit.thumbnail = thumbnail(frame_pair(edit.job, len(Clip(edit.job.output)) // 2)[1])
            write_comparison(edit.job, edit.comparison, edit.check)
        except Cancelled:
            edit.job.output.unlink(missing_ok=True)
            return "cancelled"
        except UserError as error:
            edit.problem = named(error, edit.job)
            return "failed"
        except torch.OutOfMemoryError:
            edit.problem = "the device's memory does not hold this edit; choose a shorter range"
            return "failed"
        except Exception as error:  # the page and the edits after this one go on
            edit.problem = f"the edit failed ({type(error).__name__}: {error})"
            print(f"error: {edit.problem}", file=sys.stderr)
            return "failed"
        return "done"


def inspect(path: Path, limits: Limits, start: float | None = None, end: float | None = None) -> VideoInfo:
    """What a range of an uploaded video is.

    Args:
        start, end: seconds; all of it where None.

    Raises:
        UserError: it is no video, or beyond the limits; only the file's name is told.
    """
    if not path.is_file():
        raise UserError(f"{path.name} is not here any more; upload it again")
    size = path.stat().st_size
    if size == 0:
        raise UserError(f"{path.name} is empty; choose a video")
    if size > limits.megabytes * MEGABYTE:
        raise UserError(f"{path.name} has {size / MEGABYTE:.1f} MB; at most {limits.megabytes:g} MB are taken here")
    try:
        info = Clip(path, start, end).info
    except UserError as error:
        raise UserError(str(error).replace(str(path), path.name)) from error
    if info.duration > limits.seconds:
        raise UserError(
            f"{path.name} lasts {info.duration:.1f} s; at most {limits.seconds:g} s are edited here at a time: "
            "set start and end under Settings"
        )
    return info


def named(error: Exception, job: Job) -> str:
    """A message in one line, with the files' names in place of their paths."""
    text = str(error).replace(str(job.input), job.input.name).replace(str(job.output), job.output.name)
    return " ".join(text.split())
