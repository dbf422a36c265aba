"""An edit of a file with a progress bar and its notes on the terminal."""

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from imvideoedit.common.terminal import say
from imvideoedit.editing.edit_file import edit_file
from imvideoedit.editing.job import Job, side_by_side_path
from imvideoedit.editing.pipeline import EditPipeline

NANO_NOTE = (
    "note: this adapter edits scenes of the nano world only; on real footage its output is nonsense. "
    "For that, train or get an adapter for Wan."
)


def edit_shown(pipeline: EditPipeline, job: Job) -> None:
    """Edit a file, as :func:`imvideoedit.editing.edit_file.edit_file` does, and say what is made of what.

    Raises:
        UserError: what ``edit_file`` raises.
    """
    info = job.open_clip().info
    if pipeline.backbone.is_nano:
        print(NANO_NOTE, file=sys.stderr)
    columns = (TextColumn("editing"), BarColumn(), TextColumn("{task.completed}/{task.total} passes"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("editing", total=None)
        prompts = edit_file(pipeline, job, lambda done, total: bar.update(task, completed=done, total=total))
    if prompts.note:
        say(f"note: {prompts.note}", file=sys.stderr)
    if prompts.prompt not in (job.instruction, job.prompt):
        say(f"prompt: {prompts.prompt}")
    say(f"wrote {job.output} ({info.frames} frames, {info.width}x{info.height}, {float(info.fps):g} fps)")
    if job.side_by_side:
        say(f"wrote {side_by_side_path(job.output)}")
