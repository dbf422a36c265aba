"""Scores of a run that has just finished, for sweeps."""

from collections.abc import Sequence
from pathlib import Path

from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.evaluation.nano.suite import run as run_suite


def score_run(run: Path | str, per_task: int = 5, frames: Sequence[int] = (17,)) -> None:
    """Score a run's adapter on NanoEdit-Bench; writes ``scores/`` in the run's folder.

    Args:
        run: folder with ``adapter.safetensors``.
        per_task, frames: as in :func:`imvideoedit.evaluation.nano.suite.run`.
    """
    run_suite(
        EditPipeline.from_pretrained(adapter=Path(run) / "adapter.safetensors"), Path(run) / "scores", per_task, frames
    )
