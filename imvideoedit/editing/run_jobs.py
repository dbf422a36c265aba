"""Many edits: finished ones are skipped, a bad one does not stop the rest, several devices share the list."""

import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from imvideoedit.common.errors import UserError
from imvideoedit.editing.edit_file import edit_file, is_made, load
from imvideoedit.editing.jobs import Entry, Job
from imvideoedit.editing.model_options import Model
from imvideoedit.editing.pipeline import EditPipeline

MARKS = {"made": "made", "skipped": "made before", "failed": "failed"}


@dataclass(frozen=True)
class Outcome:
    """What became of an entry: ``made``, ``skipped`` or ``failed``."""

    entry: Entry
    state: str
    words: str = ""


def run_batch(
    entries: Sequence[Entry],
    model: Model,
    devices: Sequence[str | None],
    told: Callable[[Outcome], None],
) -> list[Outcome]:
    """Make all edits that are not there yet.

    Args:
        model: of all of them.
        devices: a process for each, and each takes the next job when it is done; a single one is used in this process.
        told: each outcome as it comes.
    """
    outcomes = []
    for outcome in _outcomes(entries, model, devices):
        told(outcome)
        outcomes.append(outcome)
    return outcomes


def show(outcomes: Sequence[Outcome]) -> None:
    """Print the failures, a line each, and how many of each outcome, to the error stream."""
    for outcome in outcomes:
        if outcome.state == "failed":
            print(f"failed: {outcome.entry.where}: {outcome.words}", file=sys.stderr)
    counts = {mark: sum(outcome.state == state for outcome in outcomes) for state, mark in MARKS.items()}
    print(", ".join(f"{count} {mark}" for mark, count in counts.items()), file=sys.stderr)


def _outcomes(entries: Sequence[Entry], model: Model, devices: Sequence[str | None]) -> Iterator[Outcome]:
    waiting: list[Entry] = []
    identity = model.identity()
    for entry in entries:
        if entry.job is None:
            yield Outcome(entry, "failed", entry.problem)
        else:
            try:
                made = is_made(entry.job, identity)
            except UserError as error:
                yield Outcome(entry, "failed", str(error))
                continue
            if made:
                yield Outcome(entry, "skipped")
            else:
                waiting.append(entry)
    if not waiting:
        return
    if len(devices) == 1:
        pipeline = load(model, devices[0])
        yield from (_made(pipeline, identity, entry) for entry in waiting)
        return
    yield from _shared(waiting, model, devices)


def _shared(waiting: Sequence[Entry], model: Model, devices: Sequence[str | None]) -> Iterator[Outcome]:
    context = multiprocessing.get_context("spawn")  # a forked process cannot use a GPU
    free = context.SimpleQueue()
    for device in devices:
        free.put(device)
    with ProcessPoolExecutor(len(devices), context, _begin, (model, free)) as pool:
        futures: dict[Future, Entry] = {pool.submit(_made_here, entry): entry for entry in waiting}
        for future in as_completed(futures):
            error = future.exception()
            yield future.result() if error is None else Outcome(futures[future], "failed", str(error))


_here: list[tuple[EditPipeline, str]] = []  # of a worker process


def _begin(model: Model, free: Any) -> None:
    _here.append((load(model, free.get()), model.identity()))


def _made_here(entry: Entry) -> Outcome:
    return _made(*_here[0], entry)


def _made(pipeline: EditPipeline, identity: str, entry: Entry) -> Outcome:
    job: Job | None = entry.job
    assert job is not None
    try:
        texts = edit_file(pipeline, job, identity)
    except UserError as error:
        return Outcome(entry, "failed", str(error))
    return Outcome(entry, "made", texts.note)
