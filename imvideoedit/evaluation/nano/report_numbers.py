"""The numbers of a report: means, intervals and paired differences, over all videos, each task and each length."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from imvideoedit.evaluation.nano.report_data import SCORES, Variant
from imvideoedit.evaluation.nano.summary import Row
from imvideoedit.evaluation.reporting.statistics import interval_over_seeds

Line = dict[str, Any]  # a row of table.csv
DIFFERENCE = ("difference", "difference_low", "difference_high", "verdict")
COLUMNS = (
    "variant", "task", "frames", "seeds", "videos", "overall", "low", "high", *SCORES[1:], "parameters", "steps",
    *DIFFERENCE,
)  # fmt: skip


def numbers(known: Sequence[Variant], compared: Sequence[Variant]) -> list[Line]:
    """A line for every variant and reference over all videos, then for each task, then for each length."""
    rows = [row for variant in known for row in variant.rows]
    tasks = [("task", task) for task in dict.fromkeys(row["task"] for row in rows)]
    lengths = [("frames", length) for length in sorted({row["frames"] for row in rows})]
    lines = []
    for key, value in [("", ""), *tasks, *lengths]:
        first = _within(known[0].rows, key, value)
        for variant in (*known, *compared):
            own = _within(variant.rows, key, value)
            if own:
                place = {"variant": variant.label, "task": "", "frames": "", **({key: value} if key else {})}
                paired = difference(own, first) if variant in known[1:] else {}
                lines.append({**place, **_scores(own), **_training(variant), **paired})
    return lines


def difference(rows: Sequence[Row], first: Sequence[Row]) -> Line:
    """Mean of overall less that of the first variant on the same task, video, length and seed, and what it tells."""
    right = {_place(row): row["overall"] for row in first}
    paired = [{**row, "overall": row["overall"] - right[_place(row)]} for row in rows if _place(row) in right]
    if not paired:
        return {"verdict": "no video and seed in common"}
    low, high = interval_over_seeds(paired)
    verdict = "interval includes zero"
    if low > 0 or high < 0:
        verdict = f"interval excludes zero: {'higher' if low > 0 else 'lower'}"
    return dict(zip(DIFFERENCE, (mean_of(paired, "overall"), low, high, verdict), strict=True))


def mean_of(rows: Sequence[Row], key: str) -> float:
    """Mean of what is known; NaN where nothing is."""
    known = [row[key] for row in rows if not math.isnan(row[key])]
    return float(np.mean(known)) if known else math.nan


def _place(row: Row) -> tuple:
    return tuple(row[key] for key in ("seed", "task", "video", "frames"))


def _within(rows: Sequence[Row], key: str, value: Any) -> list[Row]:
    return [row for row in rows if not key or row[key] == value]


def _scores(rows: Sequence[Row]) -> Line:
    low, high = interval_over_seeds(rows)
    counts = {"seeds": len({row["seed"] for row in rows}), "videos": len({(row["task"], row["video"]) for row in rows})}
    return {**counts, **{key: mean_of(rows, key) for key in SCORES}, "low": low, "high": high}


def _training(variant: Variant) -> Line:
    """Parameters and steps of the runs; several where they differ, and nothing for an editor without training."""
    if not variant.runs:
        return {"seeds": ""}
    known = {key: {getattr(run, key) for run in variant.runs} - {None} for key in ("parameters", "steps")}
    return {key: " or ".join(str(value) for value in sorted(values)) for key, values in known.items()}
