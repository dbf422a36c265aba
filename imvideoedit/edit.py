"""``imvideoedit-edit input.mp4 "instruction"``: edit a video; rate, length, size and sound stay.

The input may also be a folder of videos, or a list of edits: a .jsonl or .csv with the columns input and instruction.
"""

import os.path
import sys
from collections.abc import Sequence
from functools import partial

from imvideoedit.common.errors import UserError, exit_cleanly
from imvideoedit.common.launched import hush_others, process_count
from imvideoedit.common.terminal import say
from imvideoedit.editing.edit_options import build_parser, parse_job
from imvideoedit.editing.job import Job
from imvideoedit.editing.job_rows import LISTS
from imvideoedit.editing.jobs import Entry, read_jobs
from imvideoedit.editing.model_options import ModelOptions, parse_model_options

SOME_FAILED = 1  # exit code of a list in which a job failed


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    """Entry point of ``imvideoedit-edit``."""
    loud = hush_others()
    arguments = build_parser(__doc__ or "").parse_args(argv)
    options, job = parse_model_options(arguments), parse_job(arguments)
    devices = arguments.device or [None]
    given = arguments.input
    several = process_count() > 1
    if os.path.isdir(given) or (os.path.isfile(given) and given.suffix.lower() in LISTS):
        if several:
            raise UserError(
                f"{given} is a list of edits, each of which one process makes; start a single one, with a --device for "
                "each GPU"
            )
        entries = read_jobs(given, arguments.instruction, arguments.output, job, tell=_note)
        _edit_many(entries, options, devices)
    elif several:
        from imvideoedit.editing.edit_together import edit_together

        edit_together(job, options, arguments.device, partial(_check_one, job, options), loud)
    else:
        _edit_one(job, options, devices[0])


def _edit_one(job: Job, options: ModelOptions, device: str | None) -> None:
    _check_one(job, options)
    from imvideoedit.editing.edit_file import load_pipeline
    from imvideoedit.editing.shown import edit_shown

    edit_shown(load_pipeline(options, device), job)


def _check_one(job: Job, options: ModelOptions) -> None:
    if not job.instruction and not _has_own_prompt(options):
        raise UserError('there is no instruction; say what to change: imvideoedit-edit VIDEO "make the red box blue"')
    if not os.path.isdir(job.output.parent):
        raise UserError(f"the folder {job.output.parent} of the output does not exist; make it, or change --output")
    job.open_clip()  # an unreadable file shows before the model is loaded


def _has_own_prompt(options: ModelOptions) -> bool:
    """Whether the adapter was fitted to one clip, and says what is in it after the edit."""
    from imvideoedit.editing.fitted_clip import FittedClip

    return FittedClip.of(options.adapters[0][0]) is not None


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
