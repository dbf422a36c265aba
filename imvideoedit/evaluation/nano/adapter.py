"""NanoEdit-Bench on an adapter: the suite ``nano`` with its report, and the scores of a finished training run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.evaluation.nano.report import write_report
from imvideoedit.evaluation.nano.suite import run_nano_suite


def score_adapter(out: Path, adapter: str, device: str | None, **suite: Any) -> Path:
    """Score an adapter and write the report.

    Args:
        suite: further arguments of :func:`run_nano_suite`.

    Returns:
        The report's page.

    Raises:
        UserError: the adapter or its backbone is missing, or as :func:`run_nano_suite`.
    """
    run_nano_suite(EditPipeline.from_pretrained(adapter=adapter, device=device), out, **suite)
    print("the scores:", out / "result.json")
    return write_report(out, out / "report")


def score_run(run: Path | str, per_task: int = 5, frames: Sequence[int] = (17,)) -> None:
    """Score the adapter of a finished training run into ``scores/`` in the run's folder, for sweeps.

    Args:
        run: folder with ``adapter.safetensors``.
        per_task, frames: as in :func:`run_nano_suite`.
    """
    pipeline = EditPipeline.from_pretrained(adapter=Path(run) / "adapter.safetensors")
    run_nano_suite(pipeline, Path(run) / "scores", per_task, frames)
