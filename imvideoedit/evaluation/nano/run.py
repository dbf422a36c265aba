"""NanoEdit-Bench on an adapter, with its report."""

from pathlib import Path
from typing import Any

from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.evaluation.nano.report import report
from imvideoedit.evaluation.nano.suite import run as run_suite


def run(out: Path, adapter: str, device: str | None, **suite: Any) -> Path:
    """Score an adapter by :func:`imvideoedit.evaluation.nano.suite.run`, whose further arguments are taken.

    Returns:
        The report's page.

    Raises:
        UserError: the adapter or its backbone is missing, or what the suite raises.
    """
    run_suite(EditPipeline.from_pretrained(adapter=adapter, device=device), out, **suite)
    print("the numbers:", out / "result.json")
    return report(out, out / "report")
