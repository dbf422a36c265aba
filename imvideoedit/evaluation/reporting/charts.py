"""What the reports' pictures share: colours that every eye tells apart, canvases, radars, PNG bytes."""

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito: for every eye
DASHES = ("-", "--", ":", "-.")
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "text.parse_math": False,  # a label is no formula, whatever signs are in it
}

Line = tuple[str, Sequence[float], str, str]
"""A label, its values, its color and its dashes."""


def circle(names: Sequence[str], lines: Sequence[Line], highest: float = 100) -> Figure:
    """A radar: values of each name around a circle, 0 in its middle; NaN leaves a gap."""
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
        side, height = math.sin(angle), math.cos(angle)  # names grow outwards, so that none lies on the circle
        name.set_horizontalalignment("center" if abs(side) < 0.1 else "left" if side > 0 else "right")
        name.set_verticalalignment("center" if abs(height) < 0.9 else "bottom" if height > 0 else "top")
    axes.set_ylim(0, highest)
    axes.set_yticks([highest / 4, highest / 2, highest * 3 / 4])
    axes.set_rlabel_position(180 / len(names))  # degrees, between two names
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def canvas(wide: float, high: float) -> tuple[Figure, Axes]:
    """A figure with axes, in inches."""
    figure = Figure(figsize=(wide, high), layout="constrained")
    return figure, figure.subplots()


def look(place: int) -> tuple[str, str]:
    """Color and dashes of the n-th line."""
    return COLORS[place % len(COLORS)], DASHES[place // len(COLORS) % len(DASHES)]


def png(figure: Figure) -> bytes:
    """The figure as a file's bytes, the same for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
