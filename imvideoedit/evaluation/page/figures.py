"""The report's pictures."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from imvideoedit.evaluation.edits.scored import Scored
from imvideoedit.evaluation.page.numbers import estimate, methods_of, tasks_of, values_of
from imvideoedit.evaluation.page.tables import title
from imvideoedit.evaluation.reporting.charts import COLORS, STYLE, canvas, circle, look, png

AT_ONCE = len(COLORS)  # methods in one radar


def draw(scored: Sequence[Scored], measures: Sequence[str], main: str, scales: dict[str, float]) -> dict[str, bytes]:
    """PNGs by name: ``<measure>`` bars of every measure's means, ``tasks`` and ``dimensions`` as radars.

    Args:
        main: the measure that methods are ranked by.
        scales: measure -> the most it can be, where there is a most.
    """
    with matplotlib.rc_context(STYLE):
        figures = {"tasks": _tasks(scored, main, scales), "dimensions": _dimensions(scored, measures, scales)}
        figures |= {f"bars_{name.replace('.', '_')}": _bars(scored, name, scales.get(name)) for name in measures}
        return {name: png(figure) for name, figure in figures.items() if figure is not None}


def _bars(scored: Sequence[Scored], measure: str, highest: float | None) -> Figure:
    methods = methods_of(scored)
    figure, axes = canvas(8, 0.42 * len(methods) + 1.0)
    for place, method in enumerate(methods):
        found = estimate(list(values_of(scored, method, measure).values()))
        if found is not None:
            axes.barh(place, found.mean, height=0.62, color=look(place)[0], alpha=0.85)
            edges = [[found.mean - found.low], [found.high - found.mean]]
            axes.errorbar(found.mean, place, xerr=edges, color="#222222", capsize=4, linewidth=1.4)
            axes.annotate(
                f"{found.mean:.3g}", (max(found.high, 0), place), (6, 0), textcoords="offset points", va="center"
            )
    axes.set_yticks(range(len(methods)), methods)
    axes.invert_yaxis()
    if highest is not None:
        axes.set_xlim(0, highest * 1.08)
    axes.margins(x=0.12)
    axes.grid(False, axis="y")
    axes.set_xlabel(f"{title(measure)}; lines: 95 % interval")
    return figure


def _tasks(scored: Sequence[Scored], measure: str, scales: dict[str, float]) -> Figure | None:
    """None for fewer than three tasks, or a measure without a scale."""
    tasks = tasks_of(scored)
    if len(tasks) < 3 or measure not in scales:
        return None
    lines = [
        (method, [_mean(scored, method, measure, task) for task in tasks], *look(place))
        for place, method in enumerate(methods_of(scored)[:AT_ONCE])
    ]
    return circle(tasks, lines, scales[measure])


def _dimensions(scored: Sequence[Scored], measures: Sequence[str], scales: dict[str, float]) -> Figure | None:
    """Every measure with a scale, as a share of its most in percent; None for fewer than three."""
    scaled = [name for name in measures if name in scales and not name.endswith(".total")]
    if len(scaled) < 3:
        return None
    lines = [
        (method, [100 * _mean(scored, method, name) / scales[name] for name in scaled], *look(place))
        for place, method in enumerate(methods_of(scored)[:AT_ONCE])
    ]
    names = [name.split(".", 1)[1] for name in scaled]
    if len(set(names)) < len(names):  # two judges of the same dimensions
        names = [name.replace(".", "_") for name in scaled]
    return circle(names, lines)


def _mean(scored: Sequence[Scored], method: str, measure: str, task: str | None = None) -> float:
    values = list(values_of(scored, method, measure, task).values())
    return float(np.mean(values)) if values else float("nan")
