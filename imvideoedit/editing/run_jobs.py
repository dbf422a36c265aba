"""Many edits: finished ones are skipped, a failed one does not stop the others, several devices share the list."""

import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace

from imvideoedit.common.errors import UserError, lasting_output, notes_in_one_line, one_line
from imvideoedit.common.terminal import say
from imvideoedit.editing.edit_file import edit_file, load_pipeline, why_made_again
from imvideoedit.editing.jobs import Entry
from imvideoedit.editing.model_options import ModelOptions
from imvideoedit.editing.pipeline import EditPipeline

STATES = {"made": "made", "skipped": "made before", "failed": "failed"}
"""States of an outcome, and how they are printed."""


@dataclass(frozen=True)
class Outcome:
    """The end of an entry: ``made``, ``skipped`` or ``failed``, with a note or the error."""

    entry: Entry
    state: str
    note: str = ""


def run_jobs(entries: Sequence[Entry], options: ModelOptions, devices: Sequence[str | None]) -> Iterator[Outcome]:
    """Make all edits that do not exist yet; yields each outcome as it comes.

    Whatever goes wrong with an entry fails that entry alone.

    Args:
        devices: one process each, which takes the next job when it is free; a single device is used in this process.

    Raises:
        UserError: the model cannot be loaded.
    """
    if len(devices) == 1:
        yield from _one_by_one(entries, options, devices[0])
        return
    waiting: deque[tuple[Entry, str]] = deque()
    for entry in entries:
        found = _look(entry, options)
        if isinstance(found, Outcome):
            yield found
        else:
            waiting.append((entry, found))
    if waiting:
        yield from _outcomes_of_processes(waiting, options, devices[: len(waiting)])


def _one_by_one(entries: Sequence[Entry], options: ModelOptions, device: str | None) -> Iterator[Outcome]:
    pipeline = None
    for entry in entries:
        # Not before the last one was made, whose output this one may edit.
        found = _look(entry, options)
        if isinstance(found, Outcome):
            yield found
            continue
        pipeline = pipeline or load_pipeline(options, device)
        yield _noted(_edit(pipeline, entry), found)


def _look(entry: Entry, options: ModelOptions) -> Outcome | str:
    """The outcome of an entry that is made or wrong; of others, why they are made again if they are."""
    try:
        if entry.job is None:
            raise UserError(entry.problem)
        why = why_made_again(entry.job, options.contents)
    except Exception as error:
        return Outcome(entry, "failed", one_line(error))
    return Outcome(entry, "skipped") if why is None else why


def _noted(outcome: Outcome, why: str) -> Outcome:
    """An outcome that says why an edit was made again."""
    if not why or outcome.state != "made":
        return outcome
    return replace(outcome, note="; ".join(filter(None, [f"again: {why}", outcome.note])))


def print_summary(outcomes: Sequence[Outcome]) -> None:
    """Print the failures, a line each, and the number of each outcome, to stderr."""
    for outcome in outcomes:
        if outcome.state == "failed":
            say(f"failed: {outcome.entry.where}: {outcome.note}", file=sys.stderr)
    counts = {words: sum(outcome.state == state for outcome in outcomes) for state, words in STATES.items()}
    print(", ".join(f"{count} {words}" for words, count in counts.items()), file=sys.stderr)


def _edit(pipeline: EditPipeline, entry: Entry) -> Outcome:
    assert entry.job is not None
    try:
        return Outcome(entry, "made", edit_file(pipeline, entry.job).note)
    except Exception as error:  # the others must survive it
        return Outcome(entry, "failed", one_line(error))


def _outcomes_of_processes(
    waiting: deque[tuple[Entry, str]], options: ModelOptions, devices: Sequence[str | None]
) -> Iterator[Outcome]:
    workers = [_Worker(options, device) for device in devices]
    try:
        for loading, device in zip([worker.load() for worker in workers], devices, strict=True):
            _loaded(loading, device)
        running: dict[Future[Outcome], tuple[_Worker, Entry, str]] = {}
        while waiting or running:
            for worker in workers:
                if waiting and worker not in {busy for busy, _, _ in running.values()}:
                    entry, why = waiting.popleft()
                    running[worker.edit(entry)] = worker, entry, why
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                worker, entry, why = running.pop(future)
                yield _noted(worker.outcome(future, entry), why)
    finally:
        for worker in workers:
            worker.end()


def _loaded(loading: "Future[None]", device: str | None) -> None:
    try:
        loading.result()
    except BrokenProcessPool as error:
        raise UserError(f"the process for --device {device} was ended while it loaded the model") from error


class _Worker:
    """A process that edits on one device, and another one in its place where an edit ends it."""

    def __init__(self, options: ModelOptions, device: str | None) -> None:
        self._options, self._device = options, device
        self._start()

    def _start(self) -> None:
        # Spawned: a forked process cannot use a GPU.
        self._process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    def load(self) -> "Future[None]":
        """Begin to load the model; the future raises what ``load_pipeline`` does."""
        return self._process.submit(_load_in_worker, self._options, self._device)

    def edit(self, entry: Entry) -> "Future[Outcome]":
        """Begin an edit, with one model for all that the process makes."""
        try:
            return self._process.submit(_edit_in_worker, self._options, self._device, entry)
        except BrokenProcessPool:  # ended while it had nothing to do
            self._restart()
            return self.edit(entry)

    def outcome(self, future: "Future[Outcome]", entry: Entry) -> Outcome:
        """The outcome of an edit that is over."""
        try:
            return future.result()
        except BrokenProcessPool:
            self._restart()
            return Outcome(entry, "failed", "the process that made it was ended, perhaps for want of memory")
        except Exception as error:
            return Outcome(entry, "failed", one_line(error))

    def _restart(self) -> None:
        self.end()
        self._start()

    def end(self) -> None:
        """Wait for the edit under way, then end the process."""
        self._process.shutdown(cancel_futures=True)


_worker_pipeline: list[EditPipeline] = []


def _load_in_worker(options: ModelOptions, device: str | None) -> None:
    if not _worker_pipeline:
        _worker_pipeline.append(load_pipeline(options, device))


def _edit_in_worker(options: ModelOptions, device: str | None, entry: Entry) -> Outcome:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with lasting_output(), notes_in_one_line():
            _load_in_worker(options, device)
            return _edit(_worker_pipeline[0], entry)
    except KeyboardInterrupt:
        return Outcome(entry, "failed", "interrupted")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends what is made; the process is ended by its parent
