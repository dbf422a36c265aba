"""Many measured videos as a few numbers: means and bootstrap intervals, overall, per task and per length."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .scoring import WEIGHTS

RESAMPLES = 1000  # of the bootstrap
Row = dict[str, Any]


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Means over all videos, and the same for every ``tasks`` and ``lengths``; see :func:`means`."""
    tasks, lengths = (list(dict.fromkeys(row[key] for row in rows)) for key in ("task", "frames"))
    return {
        **means(rows),
        "tasks": {task: means([row for row in rows if row["task"] == task]) for task in tasks},
        "lengths": {str(n): _with_tasks([row for row in rows if row["frames"] == n], tasks) for n in lengths},
    }


def _with_tasks(rows: Sequence[Row], tasks: Sequence[str]) -> dict[str, Any]:
    return {**means(rows), "tasks": {task: means([row for row in rows if row["task"] == task]) for task in tasks}}


def means(rows: Sequence[Row]) -> dict[str, Any]:
    """Mean of every measure, the ``parts``, ``overall`` with its 95 % bootstrap ``interval``, and ``videos``."""
    named = ("task", "video", "frames", "editor", *WEIGHTS)
    values = {key: _mean([row[key] for row in rows]) for key in rows[0] if key not in named}
    points = {name: _mean([row[name] for row in rows]) for name in WEIGHTS}
    interval = bootstrap([row["overall"] for row in rows])
    return {"overall": values.pop("overall"), "interval": interval, "parts": points, **values, "videos": len(rows)}


def bootstrap(values: Sequence[float], seed: int = 0) -> list[float]:
    """95 % interval of the mean by resampling videos; the same for the same values."""
    drawn = np.random.default_rng(seed).choice(np.asarray(values, float), (RESAMPLES, len(values)))
    return [round(float(edge), 2) for edge in np.percentile(drawn.mean(1), (2.5, 97.5))]


def _mean(values: Sequence[float]) -> float | None:
    """Mean of the known values; None where there is none, which JSON can say."""
    known = [value for value in values if not math.isnan(value)]
    return round(float(np.mean(known)), 4) if known else None
