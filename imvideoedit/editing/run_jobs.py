"""Many edits: finished ones are skipped, a failed one does not stop the others, several devices share the list."""

import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from imvideoedit.common.errors import UserError
from imvideoedit.editing.edit_file import edit_file, is_made, load_pipeline
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

    Args:
        devices: one process each, which takes the next job when it is free; a single device is used in this process.
    """
    waiting: list[Entry] = []
    for entry in entries:
        try:
            if entry.job is None:
                raise UserError(entry.problem)
            if is_made(entry.job, options.identity):
                yield Outcome(entry, "skipped")
            else:
                waiting.append(entry)
        except UserError as error:
            yield Outcome(entry, "failed", str(error))
    if not waiting:
        return
    if len(devices) == 1:
        pipeline = load_pipeline(options, devices[0])
        yield from (_outcome(pipeline, entry) for entry in waiting)
    else:
        yield from _outcomes_of_processes(waiting, options, devices)


def print_summary(outcomes: Sequence[Outcome]) -> None:
    """Print the failures, a line each, and the number of each outcome, to stderr."""
    for outcome in outcomes:
        if outcome.state == "failed":
            print(f"failed: {outcome.entry.where}: {outcome.note}", file=sys.stderr)
    counts = {words: sum(outcome.state == state for outcome in outcomes) for state, words in STATES.items()}
    print(", ".join(f"{count} {words}" for words, count in counts.items()), file=sys.stderr)


def _outcome(pipeline: EditPipeline, entry: Entry) -> Outcome:
    assert entry.job is not None
    try:
        return Outcome(entry, "made", edit_file(pipeline, entry.job).note)
    except UserError as error:
        return Outcome(entry, "failed", str(error))


def _outcomes_of_processes(
    waiting: Sequence[Entry], options: ModelOptions, devices: Sequence[str | None]
) -> Iterator[Outcome]:
    context = multiprocessing.get_context("spawn")  # a forked process cannot use a GPU
    free = context.SimpleQueue()
    for device in devices:
        free.put(device)
    with ProcessPoolExecutor(len(devices), context, _start_worker, (options, free)) as pool:
        futures: dict[Future, Entry] = {pool.submit(_outcome_in_worker, entry): entry for entry in waiting}
        for future in as_completed(futures):
            error = future.exception()
            yield future.result() if error is None else Outcome(futures[future], "failed", str(error))


_worker_pipeline: list[EditPipeline] = []


def _start_worker(options: ModelOptions, free: Any) -> None:
    _worker_pipeline.append(load_pipeline(options, free.get()))


def _outcome_in_worker(entry: Entry) -> Outcome:
    return _outcome(_worker_pipeline[0], entry)
