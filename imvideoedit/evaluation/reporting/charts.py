"""Charts that reports share, with colours for every kind of colour vision."""

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from imvideoedit.evaluation.reporting.statistics import Estimate

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito
DASHES = ("-", "--", ":", "-.")
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "text.parse_math": False,  # a $ in a label is no formula
}

Line = tuple[str, Sequence[float], str, str]
"""A label, its values, its color and its dashes."""

AT_ONCE = len(COLORS)  # lines that one chart can tell apart


def interval_bars(
    names: Sequence[str], estimates: Sequence[Estimate | None], colors: Sequence[str], form: str, highest: float | None
) -> tuple[Figure, Axes]:
    """A horizontal bar for each name, with its interval and its mean; None leaves a row empty.

    Args:
        form: format of the printed mean, such as ``.1f``.
        highest: right end of the scale; None fits it to the bars.
    """
    figure, axes = canvas(8, 0.42 * len(names) + 1.0)
    for place, (found, color) in enumerate(zip(estimates, colors, strict=True)):
        if found is not None:
            mean, low, high = found
            axes.barh(place, mean, height=0.62, color=color, alpha=0.85)
            axes.errorbar(mean, place, xerr=[[mean - low], [high - mean]], color="#222222", capsize=4, linewidth=1.4)
            axes.annotate(f"{mean:{form}}", (max(high, 0), place), (6, 0), textcoords="offset points", va="center")
    name_rows(axes, names)
    if highest is not None:
        axes.set_xlim(0, highest * 1.05)
    axes.margins(x=0.12)
    return figure, axes


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of horizontal bars, from the top down."""
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(False, axis="y")


def radar(names: Sequence[str], lines: Sequence[Line], highest: float = 100) -> Figure:
    """Values of each name around a circle, 0 at its center; NaN leaves a gap."""
    figure = Figure(figsize=(8, 6.6), layout="constrained")
    axes: Any = figure.add_subplot(projection="polar", theta_offset=math.pi / 2, theta_direction=-1)
    angles = np.linspace(0, 2 * math.pi, len(names), endpoint=False)
    for label, values, color, dash in lines:
        closed = np.append(angles, angles[0]), np.append(values, values[0])
        axes.plot(
            *closed, color=color, linestyle=dash, linewidth=1.8, marker="o", markersize=3, clip_on=False, label=label
        )
        if np.isfinite(closed[1]).all():
            axes.fill(*closed, color=color, alpha=0.04)
    axes.set_xticks(angles, [name.replace("_", "\n") for name in names])
    axes.tick_params(axis="x", pad=6)
    for angle, name in zip(angles, axes.get_xticklabels(), strict=True):
        side, height = math.sin(angle), math.cos(angle)  # text extends outwards, so that none covers the circle
        name.set_horizontalalignment("center" if abs(side) < 0.1 else "left" if side > 0 else "right")
        name.set_verticalalignment("center" if abs(height) < 0.9 else "bottom" if height > 0 else "top")
    axes.set_ylim(0, highest)
    axes.set_yticks([highest / 4, highest / 2, highest * 3 / 4])
    axes.set_rlabel_position(180 / len(names))  # degrees, between two names
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def canvas(wide: float, high: float) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; sizes in inches."""
    figure = Figure(figsize=(wide, high), layout="constrained")
    return figure, figure.subplots()


def look(place: int) -> tuple[str, str]:
    """Color and dashes of the line number ``place``."""
    return COLORS[place % len(COLORS)], DASHES[place // len(COLORS) % len(DASHES)]


def png(figure: Figure) -> bytes:
    """The figure as a PNG file; equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
