"""Many measured videos as a few numbers: means and bootstrap intervals, overall, per task and per length.

Legend: R resamples, S training seeds, V videos.
"""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from imvideoedit.evaluation.nano.scoring import WEIGHTS
from imvideoedit.evaluation.reporting.statistics import bootstrap

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
    named = ("task", "video", "frames", "editor", "psnr_by_frame", *WEIGHTS)
    values = {key: _mean([row[key] for row in rows]) for key in rows[0] if key not in named}
    points = {name: _mean([row[name] for row in rows]) for name in WEIGHTS}
    by_video: dict[Hashable, list[float]] = {}  # which is drawn with all its lengths at once
    for row in rows:
        by_video.setdefault((row["task"], row["video"]), []).append(row["overall"])
    interval = bootstrap([float(np.mean(scores)) for scores in by_video.values()])
    return {"overall": values.pop("overall"), "interval": interval, "parts": points, **values, "videos": len(rows)}


def _mean(values: Sequence[float]) -> float | None:
    """Mean of the known values; None where there is none, which JSON can say."""
    known = [value for value in values if not math.isnan(value)]
    return round(float(np.mean(known)), 4) if known else None
