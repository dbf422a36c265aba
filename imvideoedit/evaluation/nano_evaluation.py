"""NanoEdit-Bench on an adapter, with its report."""

from pathlib import Path
from typing import Any

from ..pipeline import EditPipeline
from .nano_suite import run as run_suite
from .report import report


def run(out: Path, adapter: str, device: str | None, **suite: Any) -> Path:
    """Score an adapter by :func:`imvideoedit.evaluation.nano_suite.run`, whose further arguments are taken.

    Returns:
        The report's page.

    Raises:
        UserError: the adapter or its backbone is missing, or what the suite raises.
    """
    run_suite(EditPipeline.from_pretrained(adapter=adapter, device=device), out, **suite)
    print("the numbers:", out / "result.json")
    return report(out, out / "report")
