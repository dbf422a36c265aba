"""Plots of a NanoEdit-Bench report."""

import math
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from imvideoedit.evaluation.nano.report_data import Variant
from imvideoedit.evaluation.nano.report_estimates import estimate_of, mean_of
from imvideoedit.evaluation.nano.scoring import WEIGHTS
from imvideoedit.evaluation.reporting.charts import (
    AT_ONCE,
    COLORS,
    STYLE,
    canvas,
    interval_bars,
    look,
    name_rows,
    png,
    radar,
)

REFERENCES = {"copy": ("#999999", "--"), "ceiling": ("#666666", ":")}  # color, dashes


def draw(variants: Sequence[Variant], references: Sequence[Variant]) -> dict[str, bytes]:
    """PNGs by name: ``variants parts tasks frames curves`` and ``against_<setting>``; those that have data."""
    with matplotlib.rc_context(STYLE):
        figures = {
            "variants": overall_bars([*variants, *references]),
            "parts": parts_bars([*variants, *references]),
            "tasks": task_radar([*variants[:AT_ONCE], *references]),
            "frames": by_frame(variants[:AT_ONCE]),
            **{_file_name(f"against_{key}"): against(variants, key) for key in numeric(variants)},
            "curves": curves(variants),
        }
        return {name: png(figure) for name, figure in figures.items() if figure is not None}


def overall_bars(shown: Sequence[Variant]) -> Figure:
    """Overall score of each, with its interval."""
    colors = [REFERENCES[variant.label][0] if variant.label in REFERENCES else COLORS[0] for variant in shown]
    found = [estimate_of(variant.rows, "overall") for variant in shown]
    figure, axes = interval_bars([variant.label for variant in shown], found, colors, ".1f", 100)
    axes.set_xlabel("overall, 0 to 100; lines: 95 % interval")
    return figure


def parts_bars(shown: Sequence[Variant]) -> Figure:
    """The four parts of each score, stacked."""
    figure, axes = canvas(8, 0.42 * len(shown) + 1.3)
    ends = np.zeros(len(shown))
    for part, color in zip(WEIGHTS, (COLORS[0], COLORS[2], COLORS[5], COLORS[4]), strict=True):
        points = np.array([np.nan_to_num(mean_of(variant.rows, part)) for variant in shown])
        label = f"{part} (of {WEIGHTS[part]:.0f})"
        axes.barh(range(len(shown)), points, left=ends, height=0.62, color=color, label=label)
        for place, width in enumerate(points):
            if width > 3:  # narrower ones have no room for the text
                ink = "white" if color == COLORS[0] else "black"
                axes.text(ends[place] + width / 2, place, f"{width:.0f}", ha="center", va="center", color=ink)
        ends += points
    axes.set_xlabel("points")
    name_rows(axes, [variant.label for variant in shown])
    axes.set_xlim(0, 105)
    figure.legend(loc="outside upper center", ncols=len(WEIGHTS))
    return figure


def task_radar(shown: Sequence[Variant]) -> Figure | None:
    """Overall score of every task as a radar; None for fewer than three tasks."""
    tasks = list(dict.fromkeys(row["task"] for variant in shown for row in variant.rows))
    if len(tasks) < 3:
        return None
    lines = []
    for place, variant in enumerate(shown):
        means = [mean_of([row for row in variant.rows if row["task"] == task], "overall") for task in tasks]
        lines.append((variant.label, means, *_look(variant, place)))
    return radar(tasks, lines)


def by_frame(shown: Sequence[Variant]) -> Figure | None:
    """PSNR of each frame, a panel per length; None without such rows, or if all videos are single frames."""
    rows = [row for variant in shown for row in variant.rows if row.get("psnr_by_frame")]
    lengths = sorted({row["frames"] for row in rows} - {1})
    if not lengths:
        return None
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    panels = figure.subplots(1, len(lengths), sharey=True, squeeze=False)[0]
    for axes, length in zip(panels, lengths, strict=True):
        for place, variant in enumerate(shown):
            known = [row for row in variant.rows if row["frames"] == length and row.get("psnr_by_frame")]
            if known:
                mean = np.mean([row["psnr_by_frame"] for row in known], axis=0)
                color, dash = _look(variant, place)
                axes.plot(range(1, length + 1), mean, color=color, linestyle=dash, label=variant.label)
        axes.set_title(f"{length} frames", fontsize=10)
        axes.set_xlabel("frame")
        axes.xaxis.get_major_locator().set_params(integer=True)
    panels[0].set_ylabel("PSNR of the frame (dB)")
    _legend_once(figure, panels)
    return figure


def curves(variants: Sequence[Variant]) -> Figure | None:
    """Validation loss of every run against its steps; None if no run has a table of metrics."""
    figure, axes = canvas(8, 3.8)
    for place, variant in enumerate(variants):
        color, dash = _look(variant, place)
        for run in variant.runs:
            if run.curve:
                steps, losses = zip(*run.curve, strict=True)
                axes.plot(steps, losses, color=color, ls=dash, marker="o", ms=3, lw=1.2, label=variant.label)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("validation loss")
    _legend_once(figure, [axes])
    return figure if axes.lines else None


def numeric(variants: Sequence[Variant]) -> list[str]:
    """The settings that have three or more numeric values among the variants."""
    keys = dict.fromkeys(key for variant in variants for key in variant.settings)
    values = {key: {_number(variant, key) for variant in variants} - {None} for key in keys}
    return [key for key in keys if len(values[key]) >= 3]


def against(variants: Sequence[Variant], key: str) -> Figure:
    """Overall and PSNR of the changed region against a setting, a line for each combination of other settings."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    points: dict[str, list[tuple[float, Variant]]] = {}
    for variant in variants:
        value = _number(variant, key)
        if value is not None:
            others = " ".join(f"{name}={own}" for name, own in variant.settings.items() if name != key)
            points.setdefault(others, []).append((value, variant))
    positive = all(value > 0 for line in points.values() for value, _ in line)
    scores = {"overall": "overall", "changed_psnr": "changed PSNR (dB)"}
    for axes, (score, title) in zip(panels, scores.items(), strict=True):
        for place, (others, line) in enumerate(points.items()):
            line = sorted(line, key=lambda point: point[0])
            means, lows, highs = np.array([estimate_of(variant.rows, score) for _, variant in line]).T
            color, dash = look(place)
            edges = [means - lows, highs - means]
            values = [value for value, _ in line]
            axes.errorbar(values, means, edges, color=color, ls=dash, marker="o", capsize=3, label=others)
        axes.set_xscale("log" if positive else "linear")
        ticks = sorted({value for line in points.values() for value, _ in line})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel(key)
        axes.set_title(title, fontsize=10)
    if len(points) > 1:
        _legend_once(figure, panels)
    return figure


def _number(variant: Variant, key: str) -> float | None:
    try:
        value = float(variant.settings.get(key, ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)


def _look(variant: Variant, place: int) -> tuple[str, str]:
    return REFERENCES.get(variant.label, look(place))


def _legend_once(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend below the panels, with each label once."""
    lines = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if lines:
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=3)
