"""The report's plots."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from imvideoedit.evaluation.edits.scored_edits import ScoredEdit
from imvideoedit.evaluation.page.estimates import estimate_of, methods_of, tasks_of, values_of
from imvideoedit.evaluation.page.tables import title
from imvideoedit.evaluation.reporting.charts import AT_ONCE, STYLE, interval_bars, look, png, radar


def draw(edits: Sequence[ScoredEdit], measures: Sequence[str], main: str, scales: dict[str, float]) -> dict[str, bytes]:
    """PNGs by name: ``bars_<measure>`` of every measure's means, ``tasks`` and ``dimensions`` as radars.

    Args:
        main: the measure that ranks methods.
        scales: measure -> its maximum, if it has one.
    """
    with matplotlib.rc_context(STYLE):
        figures = {"tasks": _tasks(edits, main, scales), "dimensions": _dimensions(edits, measures, scales)}
        figures |= {f"bars_{name.replace('.', '_')}": _bars(edits, name, scales.get(name)) for name in measures}
        return {name: png(figure) for name, figure in figures.items() if figure is not None}


def _bars(edits: Sequence[ScoredEdit], measure: str, highest: float | None) -> Figure:
    methods = methods_of(edits)
    colors = [look(place)[0] for place in range(len(methods))]
    found = [estimate_of(edits, method, measure) for method in methods]
    figure, axes = interval_bars(methods, found, colors, ".3g", highest)
    axes.set_xlabel(f"{title(measure)}; lines: 95 % interval")
    return figure


def _tasks(edits: Sequence[ScoredEdit], measure: str, scales: dict[str, float]) -> Figure | None:
    """None for fewer than three tasks, or a measure without a scale."""
    tasks = tasks_of(edits)
    if len(tasks) < 3 or measure not in scales:
        return None
    lines = [
        (method, [_mean(edits, method, measure, task) for task in tasks], *look(place))
        for place, method in enumerate(methods_of(edits)[:AT_ONCE])
    ]
    return radar(tasks, lines, scales[measure])


def _dimensions(edits: Sequence[ScoredEdit], measures: Sequence[str], scales: dict[str, float]) -> Figure | None:
    """Every measure with a scale, in percent of its maximum; None for fewer than three."""
    scaled = [name for name in measures if name in scales and not name.endswith(".total")]
    if len(scaled) < 3:
        return None
    lines = [
        (method, [100 * _mean(edits, method, name) / scales[name] for name in scaled], *look(place))
        for place, method in enumerate(methods_of(edits)[:AT_ONCE])
    ]
    names = [name.split(".", 1)[1] for name in scaled]
    if len(set(names)) < len(names):  # two judges of the same dimensions
        names = [name.replace(".", "_") for name in scaled]
    return radar(names, lines)


def _mean(edits: Sequence[ScoredEdit], method: str, measure: str, task: str | None = None) -> float:
    values = list(values_of(edits, method, measure, task).values())
    return float(np.mean(values)) if values else float("nan")
