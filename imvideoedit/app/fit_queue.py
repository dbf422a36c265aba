"""Fits of the page: each is ``imvideoedit-fit`` as a process of its own, one at a time, and beside no edit."""

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imvideoedit.common.errors import UserError
from imvideoedit.common.terminal import in_one_line

MOST_WAITING = 5  # fits, with the running one
ENDING_SECONDS = 30  # for a fit to save its state when it is cancelled
STEPS = re.compile(r"stage (\d): (\d+) of (\d+) steps")
LOG = "fit.log"
ERROR = "error: "


@dataclass(eq=False)
class Fit:
    """A submitted fit; the queue's thread writes it, the page reads it.

    Attributes:
        arguments: of ``imvideoedit-fit``, without ``--out``.
        out: its folder. The same arguments go on there where they were stopped.
        tab: the open page that submitted it; closing it cancels the fit.
        stages: of training.
        state: ``waiting``, ``running``, ``done``, ``failed`` or ``cancelled``.
        phase: the latest line that the process said.
        share: of the training steps that are done, in [0, 1].
        problem: one line, if it failed.
    """

    arguments: Sequence[str]
    out: Path
    tab: str
    stages: int = 1
    state: str = "waiting"
    phase: str = "Starting"
    share: float = 0.0
    problem: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)

    def hear(self, line: str) -> None:
        """Take a line of the process."""
        self.phase = in_one_line(without_folder(line, self.out))
        if (found := STEPS.search(line)) is not None:
            stage, step, steps = map(int, found.groups())
            self.share = (stage - 1 + step / steps) / self.stages

    def command(self, *more: str) -> list[str]:
        """The process's command line."""
        return [sys.executable, "-m", "imvideoedit.fit", *self.arguments, "--out", str(self.out), *more]


class FitQueue:
    """Runs fits one at a time, in a thread of its own.

    Args:
        working: held while a fit runs; by others, while no fit may.
    """

    def __init__(self, working: threading.Lock) -> None:
        self._working = working
        self._waiting: list[Fit] = []  # the first one runs
        self._process: subprocess.Popen[str] | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def submit(self, fit: Fit) -> None:
        """Append a fit.

        Raises:
            UserError: the queue is full, or holds a fit of the same tab.
        """
        with self._changed:
            if any(other.tab == fit.tab for other in self._waiting):
                raise UserError("a fit of yours is running or waiting; cancel it, or wait for its end")
            if len(self._waiting) >= MOST_WAITING:
                raise UserError("too many fits are waiting; try again in a while")
            self._waiting.append(fit)
            self._changed.notify_all()

    def before(self, fit: Fit) -> int:
        """Number of fits before this one."""
        with self._changed:
            return self._waiting.index(fit) if fit in self._waiting else 0

    def holds(self, tab: str) -> bool:
        """Whether a fit of a tab waits or runs."""
        with self._changed:
            return any(fit.tab == tab for fit in self._waiting)

    def cancel(self, tab: str | None) -> None:
        """Cancel the fit of a tab; of all tabs if None. What it has trained stays in its folder."""
        with self._changed:
            for fit in self._waiting:
                if tab in (None, fit.tab):
                    fit.cancelled.set()
            if self._waiting and self._waiting[0].cancelled.is_set() and self._process is not None:
                self._process.terminate()

    def close(self) -> None:
        """Cancel all fits and wait some seconds for the thread to end."""
        self.cancel(None)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=ENDING_SECONDS)
        if self._process is not None:
            self._process.kill()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed and not self._waiting:
                    return
                fit = self._waiting[0]
            state = "cancelled" if fit.cancelled.is_set() else self._run(fit)
            with self._changed:
                self._waiting.remove(fit)
                fit.state = state
            fit.finished.set()

    def _run(self, fit: Fit) -> str:
        """Run a fit; returns its final state."""
        with self._working:
            fit.state = "running"
            try:
                code = self._follow(fit)
            except OSError as error:
                fit.problem = f"the fit cannot be started ({error.strerror})"
                return "failed"
        if fit.cancelled.is_set():
            return "cancelled"
        if code != 0:
            fit.problem = problem_of(fit)
            return "failed"
        fit.share = 1.0
        return "done"

    def _follow(self, fit: Fit) -> int:
        """Start the process, hear its lines to the end, and return its exit code."""
        fit.out.mkdir(parents=True, exist_ok=True)
        with (fit.out / LOG).open("w") as log:
            with self._changed:
                if fit.cancelled.is_set():
                    return 0
                self._process = subprocess.Popen(fit.command(), stdout=subprocess.PIPE, stderr=log, text=True)
            assert self._process.stdout is not None
            with self._process.stdout as lines:
                for line in lines:
                    fit.hear(line)
            code = self._process.wait()
        with self._changed:
            self._process = None
        return code


def cost_of(fit: Fit) -> list[str]:
    """What a fit would do and cost, in lines; nothing is made.

    Raises:
        UserError: what it is given does not fit, or it cannot be started.
    """
    done = subprocess.run(fit.command("--dry-run"), capture_output=True, text=True)
    if done.returncode != 0:
        raise UserError(_error_in(done.stderr, fit.out))
    return [in_one_line(without_folder(line, fit.out)) for line in done.stdout.splitlines()]


def problem_of(fit: Fit) -> str:
    """Why a fit's process failed, by its log."""
    return _error_in((fit.out / LOG).read_text(errors="replace"), fit.out)


def discard(out: Path) -> None:
    """Remove a fit's folder, as far as the file system lets it go."""
    shutil.rmtree(out, ignore_errors=True)


def without_folder(text: str, out: Path) -> str:
    """A text that names the files of a fit without their folders, which are the server's own."""
    return text.replace(f"{out}/", "").replace(f"{out.parent}/", "").strip()


def _error_in(log: str, out: Path) -> str:
    lines = [line.removeprefix(ERROR) for line in log.splitlines() if line.startswith(ERROR)]
    return in_one_line(without_folder(lines[-1], out)) if lines else "the fit ended without a word"
