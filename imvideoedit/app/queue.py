"""The page's queue of edits: one at a time, first in first out, within limits."""

import shutil
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from imvideoedit.app.frames import frame_pair, write_comparison
from imvideoedit.app.live import Cancelled, Edit, LivePreview
from imvideoedit.common.errors import UserError, heard_notes, one_line
from imvideoedit.common.terminal import say
from imvideoedit.common.web import MEGABYTE
from imvideoedit.editing.edit_file import edit_file
from imvideoedit.editing.job import Job
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.video.display import thumbnail
from imvideoedit.video.reader import Clip, VideoInfo

MOST_WAITING = 20  # edits, with the running one
MOST_OF_BROWSER = 4  # of these, edits of one browser's tabs
MOST_KEPT = 100  # results, of all browsers


class TooLong(UserError):
    """The range to edit is beyond the limit."""


@dataclass(frozen=True)
class Limits:
    """The largest uploaded file and the longest range to edit."""

    megabytes: float
    seconds: float


class EditQueue:
    """Runs edits one at a time, in a thread of its own.

    What an edit writes lies in a folder of its own, that of its output, which goes with it.

    Args:
        pipeline: used by one edit at a time.
        limits: for :func:`inspect`.
    """

    def __init__(self, pipeline: EditPipeline, limits: Limits) -> None:
        self.pipeline, self.limits = pipeline, limits
        self.working = threading.Lock()  # held by what computes: an edit, or a fit
        self._waiting: list[Edit] = []  # the first one runs
        self._results: list[Edit] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def submit(self, edit: Edit) -> None:
        """Append an edit.

        Raises:
            UserError: the queue is full, or holds an edit of the same tab or many of the same browser.
        """
        with self._changed:
            refusal = ""
            if any(other.tab == edit.tab for other in self._waiting):
                refusal = "an edit of yours is running or waiting; cancel it, or wait for its end"
            elif sum(other.browser == edit.browser for other in self._waiting) >= MOST_OF_BROWSER:
                refusal = f"{MOST_OF_BROWSER} edits of yours are waiting, in all tabs; wait for the end of one"
            elif len(self._waiting) >= MOST_WAITING:
                refusal = "too many edits are waiting; try again in a while"
            if refusal:
                _discard(edit)
                raise UserError(refusal)
            self._waiting.append(edit)
            self._changed.notify_all()

    def before(self, edit: Edit) -> int:
        """Number of edits before this one."""
        with self._changed:
            return self._waiting.index(edit) if edit in self._waiting else 0

    def cancel(self, tab: str | None) -> None:
        """Cancel the edit of a tab; of all tabs if None."""
        with self._changed:
            for edit in self._waiting:
                if tab in (None, edit.tab):
                    edit.cancel.set()
            for edit in [edit for edit in self._waiting[1:] if edit.cancel.is_set()]:  # the thread removes the first
                self._waiting.remove(edit)
                _discard(edit)
                edit.state = "cancelled"
                edit.finished.set()

    def history(self, browser: str) -> list[Edit]:
        """Results of a browser, the latest first."""
        with self._changed:
            return [edit for edit in reversed(self._results) if edit.browser == browser]

    def close(self) -> None:
        """Cancel all edits and wait some seconds for the thread to end."""
        self.cancel(None)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=10)

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                edit = self._waiting[0]
            with self.working:
                state = self._run(edit)
            with self._changed:
                self._waiting.remove(edit)
                if state == "done":
                    self._keep(edit)
                else:
                    _discard(edit)
                edit.state = state
            edit.finished.set()

    def _keep(self, edit: Edit) -> None:
        self._results.append(edit)
        for old in self._results[:-MOST_KEPT]:
            _discard(old)
        self._results = self._results[-MOST_KEPT:]

    def _run(self, edit: Edit) -> str:
        """Make an edit; returns its final state."""
        edit.state = "running"
        try:
            edit.check()
            preview = LivePreview(edit, self.pipeline.backbone)
            with heard_notes() as notes:
                edit.prompts = edit_file(self.pipeline, edit.job, edit.progress, preview, edit.on_frame)
            edit.notes = [without_folders(note, edit.job) for note in (edit.prompts.note, *notes) if note]
            edit.phase = "Preparing the comparison"
            edit.thumbnail = thumbnail(frame_pair(edit.job, len(Clip(edit.job.output)) // 2)[1])
            write_comparison(edit.job, edit.comparison, edit.check)
        except Cancelled:
            return "cancelled"
        except UserError as error:
            edit.problem = without_folders(error, edit.job)
            return "failed"
        except Exception as error:  # the page and the next edits must survive it
            edit.problem = f"the edit failed ({without_folders(one_line(error), edit.job)})"
            say(f"error: {edit.problem}", file=sys.stderr)
            return "failed"
        return "done"


def _discard(edit: Edit) -> None:
    """Remove an edit's folder, with its mask, as far as the file system lets it go: the queue's thread must go on."""
    shutil.rmtree(edit.job.output.parent, ignore_errors=True)


def inspect(path: Path, limits: Limits, start: float | None = None, end: float | None = None) -> VideoInfo:
    """Check a range of an uploaded video, in seconds; all of it where None.

    Raises:
        UserError: it is no video, or beyond the limits; names the file without its folder.
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
        raise TooLong(
            f"{path.name} lasts {info.duration:.1f} s; at most {limits.seconds:g} s are edited here: "
            "set start and end under Settings"
        )
    return info


def without_folders(error: Exception | str, job: Job) -> str:
    """An error in one line, with the files' names for their paths."""
    text = str(error)
    for path in (job.input, job.output, *(given.path for name, given in job.given.items() if given.is_file(name))):
        text = text.replace(str(path), path.name)
    return " ".join(text.split())
