"""A few editors on the same held-out nano videos: one table of PSNR against the exact answer."""

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from imvideoedit.evaluation.nano.exact import SCORES, Editor, evaluate, held_out_edits

TITLES = {"changed_psnr": "changed region", "kept_psnr": "kept region", "frame_psnr": "whole frame"}


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
