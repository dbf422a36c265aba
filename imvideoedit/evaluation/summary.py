"""Many measured videos as a few numbers: means and bootstrap intervals, overall, per task and per length.

Legend: R resamples, S training seeds, V videos.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
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
    named = ("task", "video", "frames", "editor", "psnr_by_frame", *WEIGHTS)
    values = {key: _mean([row[key] for row in rows]) for key in rows[0] if key not in named}
    points = {name: _mean([row[name] for row in rows]) for name in WEIGHTS}
    by_video: dict[Hashable, list[float]] = {}  # which is drawn with all its lengths at once
    for row in rows:
        by_video.setdefault((row["task"], row["video"]), []).append(row["overall"])
    interval = bootstrap([float(np.mean(scores)) for scores in by_video.values()])
    return {"overall": values.pop("overall"), "interval": interval, "parts": points, **values, "videos": len(rows)}


def bootstrap(values: Sequence[float], seed: int = 0, decimals: int = 2) -> list[float]:
    """95 % interval of the mean by resampling videos; the same for the same values."""
    drawn = np.random.default_rng(seed).choice(np.asarray(values, float), (RESAMPLES, len(values)))
    return [round(float(edge), decimals) for edge in np.percentile(drawn.mean(1), (2.5, 97.5))]


def interval_over_seeds(rows: Sequence[Row], key: str = "overall") -> list[float]:
    """95 % interval of the mean over training seeds and videos, by resampling seeds, then videos; repeatable.

    All seeds edit the same videos, so a video is drawn for every drawn seed, and at all its lengths, at once.

    Args:
        rows: with ``seed``, ``task``, ``video`` and ``key``; NaN counts as not measured.

    Returns:
        Lower and upper edge; both NaN where nothing is known. With a single seed it speaks of the videos alone.
    """
    seeds = _places(row["seed"] for row in rows)
    videos = _places((row["task"], row["video"]) for row in rows)
    sums_SV, counts_SV = np.zeros((2, len(seeds), len(videos)))
    for row in rows:
        if not math.isnan(row[key]):
            place = seeds[row["seed"]], videos[row["task"], row["video"]]
            sums_SV[place] += row[key]
            counts_SV[place] += 1
    if not counts_SV.any():
        return [math.nan, math.nan]
    rng = np.random.default_rng(0)
    times_RV, times_RS = (rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) for n in (len(videos), len(seeds)))
    sums_R, counts_R = (((times_RS @ of_SV) * times_RV).sum(1) for of_SV in (sums_SV, counts_SV))
    drawn = sums_R[counts_R > 0] / counts_R[counts_R > 0]
    return [round(float(edge), 2) for edge in np.percentile(drawn, (2.5, 97.5))]


def _places(names: Iterable[Hashable]) -> dict[Hashable, int]:
    return {name: place for place, name in enumerate(dict.fromkeys(names))}


def _mean(values: Sequence[float]) -> float | None:
    """Mean of the known values; None where there is none, which JSON can say."""
    known = [value for value in values if not math.isnan(value)]
    return round(float(np.mean(known)), 4) if known else None
