"""``imvideoedit-edit input.mp4 "instruction"``: edit a video; rate, length, size and sound stay.

The input may also be a folder of videos, or a list of edits: a .jsonl or .csv with the columns input and instruction.
"""

import os.path
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from imvideoedit.common.errors import UserError, exit_cleanly
from imvideoedit.common.terminal import say
from imvideoedit.editing.edit_options import build_parser, parse_job
from imvideoedit.editing.job import Job, side_by_side_path
from imvideoedit.editing.job_rows import LISTS
from imvideoedit.editing.jobs import Entry, read_jobs
from imvideoedit.editing.model_options import ModelOptions, parse_model_options

SOME_FAILED = 1  # exit code of a list in which a job failed
NANO_NOTE = (
    "note: this adapter edits scenes of the nano world only; on real footage its output is nonsense. "
    "For that, train or get an adapter for Wan."
)


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    """Entry point of ``imvideoedit-edit``."""
    arguments = build_parser(__doc__ or "").parse_args(argv)
    options, job = parse_model_options(arguments), parse_job(arguments)
    devices = arguments.device or [None]
    given = arguments.input
    if os.path.isdir(given) or (os.path.isfile(given) and given.suffix.lower() in LISTS):
        entries = read_jobs(given, arguments.instruction, arguments.output, job, tell=_note)
        _edit_many(entries, options, devices)
    else:
        _edit_one(job, options, devices[0])


def _edit_one(job: Job, options: ModelOptions, device: str | None) -> None:
    if not job.instruction:
        raise UserError('there is no instruction; say what to change: imvideoedit-edit VIDEO "make the red box blue"')
    if not os.path.isdir(job.output.parent):
        raise UserError(f"the folder {job.output.parent} of the output does not exist; make it, or change --output")
    info = job.open_clip().info  # an unreadable file shows before the model is loaded
    from imvideoedit.editing.edit_file import edit_file, load_pipeline

    pipeline = load_pipeline(options, device)
    if pipeline.backbone.is_nano:
        print(NANO_NOTE, file=sys.stderr)
    columns = (TextColumn("editing"), BarColumn(), TextColumn("{task.completed}/{task.total} passes"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("editing", total=None)
        prompts = edit_file(pipeline, job, lambda done, total: bar.update(task, completed=done, total=total))
    if prompts.note:
        _note(prompts.note)
    if prompts.prompt not in (job.instruction, job.prompt):
        say(f"prompt: {prompts.prompt}")
    say(f"wrote {job.output} ({info.frames} frames, {info.width}x{info.height}, {float(info.fps):g} fps)")
    if job.side_by_side:
        say(f"wrote {side_by_side_path(job.output)}")


def _note(text: str) -> None:
    say(f"note: {text}", file=sys.stderr)


def _edit_many(entries: Sequence[Entry], options: ModelOptions, devices: Sequence[str | None]) -> None:
    from imvideoedit.editing.run_jobs import STATES, print_summary, run_jobs

    outcomes = []
    for outcome in run_jobs(entries, options, devices):
        name = outcome.entry.job.output if outcome.entry.job else outcome.entry.where
        say(f"{name}: {STATES[outcome.state]}{f' ({outcome.note})' if outcome.note else ''}")
        outcomes.append(outcome)
    print_summary(outcomes)
    if any(outcome.state == "failed" for outcome in outcomes):
        raise SystemExit(SOME_FAILED)


if __name__ == "__main__":
    main()
