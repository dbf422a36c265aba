"""Means and bootstrap intervals of scored videos: overall, per task and per length."""

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from imvideoedit.evaluation.nano.scoring import WEIGHTS
from imvideoedit.evaluation.reporting.statistics import bootstrap, mean_of_known

VideoScores = dict[str, Any]
"""Everything measured of one edited video, see :func:`imvideoedit.evaluation.nano.suite.score_editors`."""


def summarize(rows: Sequence[VideoScores]) -> dict[str, Any]:
    """Means over all videos, and the same for all ``tasks`` and ``lengths``; see :func:`means`."""
    lengths = dict.fromkeys(row["frames"] for row in rows)
    by_length = {str(length): [row for row in rows if row["frames"] == length] for length in lengths}
    return {**_with_tasks(rows), "lengths": {length: _with_tasks(own) for length, own in by_length.items()}}


def _with_tasks(rows: Sequence[VideoScores]) -> dict[str, Any]:
    tasks = dict.fromkeys(row["task"] for row in rows)
    return {**means(rows), "tasks": {task: means([row for row in rows if row["task"] == task]) for task in tasks}}


def means(rows: Sequence[VideoScores]) -> dict[str, Any]:
    """Mean of every measure, the ``parts``, ``overall`` with its 95 % bootstrap ``interval``, and ``videos``."""
    no_measures = ("task", "video", "frames", "editor", "psnr_by_frame", *WEIGHTS)
    values = {key: _mean(row[key] for row in rows) for key in rows[0] if key not in no_measures}
    points = {name: _mean(row[name] for row in rows) for name in WEIGHTS}
    by_video: dict[Hashable, list[float]] = {}  # all lengths of a video are resampled together
    for row in rows:
        by_video.setdefault((row["task"], row["video"]), []).append(row["overall"])
    interval = bootstrap([float(np.mean(scores)) for scores in by_video.values()])
    return {"overall": values.pop("overall"), "interval": interval, "parts": points, **values, "videos": len(rows)}


def _mean(values: Iterable[float]) -> float | None:
    """Mean of the known values; None if there is none, since JSON has no NaN."""
    mean = mean_of_known(values)
    return None if math.isnan(mean) else round(mean, 4)
