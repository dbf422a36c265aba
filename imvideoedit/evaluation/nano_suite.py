"""The nano suite: an adapter beside copying and the autoencoder's ceiling, at several lengths."""

from collections.abc import Sequence

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ..errors import UserError
from ..pipeline import EditPipeline
from .editors import adapter_editor, ceiling, copy_source
from .exact import SCORES, Editor, evaluate, held_out_edits

TITLES = {"changed_psnr": "changed region", "kept_psnr": "kept region", "frame_psnr": "whole frame"}


def run(
    pipeline: EditPipeline,
    per_task: int = 4,
    frames: Sequence[int] = (1, 17, 49),
    steps: int | None = None,
    guidance: float | None = None,
) -> dict[str, dict]:
    """Score on ``per_task`` held-out videos of each task at every length; prints a table a length.

    Returns:
        ``{length: {editor: scores}}``, see :func:`imvideoedit.evaluation.exact.evaluate`.

    Raises:
        UserError: the adapter's backbone is not the nano one, or a number is out of its range.
    """
    if pipeline.backbone.name != "nano":
        raise UserError(
            f"the nano suite needs an adapter of the nano backbone; this one is of {pipeline.backbone.name}"
        )
    if per_task < 1 or not frames or min(frames) < 1:
        raise UserError(f"suite.per_task and suite.frames must be at least 1; got {per_task} and {list(frames)}")
    editors = {
        "copy": copy_source,
        "adapter": adapter_editor(pipeline, steps=steps, guidance=guidance),
        "ceiling": ceiling(pipeline.backbone),
    }
    result = {}
    for length in frames:
        result[str(length)] = compare(editors, per_task, length)
        show(result[str(length)], {name: name for name in editors}, f"{10 * per_task} held-out videos, {length} frames")
    return result


def compare(editors: dict[str, Editor], per_task: int, frames: int) -> dict[str, dict]:
    """Scores of every editor on the same held-out videos, with a progress bar."""
    edits = held_out_edits(per_task)
    with Progress(transient=True) as progress:
        bar = progress.add_task(f"editing {len(edits)} held-out videos", total=len(edits) * len(editors))
        return {name: evaluate(run, edits, frames, lambda: progress.advance(bar)) for name, run in editors.items()}


def show(result: dict[str, dict], labels: dict[str, str], title: str) -> None:
    """Print one table: PSNR against the exact answer, a row an editor."""
    table = Table("", *TITLES.values(), title=f"{title}: PSNR against the exact answer (dB)")
    for name, label in labels.items():
        table.add_row(label, *(f"{result[name][key]:.1f}" for key in SCORES))
    Console().print(table)
