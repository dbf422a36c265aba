"""How sure the numbers are: intervals, paired tests, and whether raters agree.

Legend: R raters, U units, V values.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from scipy import stats

Level = Literal["nominal", "ordinal", "interval"]


def wilcoxon(first: Sequence[float], second: Sequence[float]) -> float:
    """p of the paired, two-sided Wilcoxon signed-rank test; pairs without difference are left out.

    1 where no pair differs, NaN where there is no pair.
    """
    apart = np.asarray(first, float) - np.asarray(second, float)
    if not len(apart):
        return float("nan")
    apart = apart[apart != 0]
    return float(stats.wilcoxon(apart).pvalue) if len(apart) else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) correction of p-values for their number; NaN stays and does not count."""
    known = [place for place, p in enumerate(p_values) if not np.isnan(p)]
    corrected = list(map(float, p_values))
    highest = 0.0
    for rank, place in enumerate(sorted(known, key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (len(known) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def wilson(successes: float, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927); (0, 1) where nothing was counted."""
    if count == 0:
        return 0.0, 1.0
    z, share = float(stats.norm.ppf(0.975)), successes / count
    middle = share + z * z / (2 * count)
    reach = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return float((middle - reach) / scale), float((middle + reach) / scale)


def krippendorff(ratings_RU: np.ndarray, level: Level = "ordinal") -> float:
    """Krippendorff's alpha (2011, "Computing Krippendorff's Alpha-Reliability"): 1 - D_observed / D_expected.

    1 for full agreement, 0 for chance, negative for systematic disagreement; NaN where nothing can be compared, or
    where all ratings are the same.

    Args:
        ratings_RU: NaN where a rater did not rate a unit; units with fewer than two ratings are left out.
        level: how far two values are apart: equal or not, in ranks, or their squared difference.
    """
    ratings_RU = np.asarray(ratings_RU, float)
    units = [column[~np.isnan(column)] for column in ratings_RU.T]
    units = [unit for unit in units if len(unit) > 1]
    if not units:
        return float("nan")
    values = np.unique(np.concatenate(units))
    counts_UV = np.array([[np.sum(unit == value) for value in values] for unit in units], float)
    sizes_U = counts_UV.sum(1)
    coincidences_VV = np.einsum("uv,uw,u->vw", counts_UV, counts_UV, 1 / (sizes_U - 1))
    coincidences_VV -= np.diag((counts_UV / (sizes_U - 1)[:, None]).sum(0))
    totals_V = coincidences_VV.sum(1)
    apart_VV = _apart(values, totals_V, level)
    count = totals_V.sum()
    expected = (np.outer(totals_V, totals_V) * apart_VV).sum() / (count - 1)
    observed = (coincidences_VV * apart_VV).sum()
    return float(1 - observed / expected) if expected > 0 else float("nan")


def _apart(values: np.ndarray, totals_V: np.ndarray, level: Level) -> np.ndarray:
    """Squared distance of every two values."""
    if level == "nominal":
        return 1.0 - np.eye(len(values))
    if level == "interval":
        return (values[:, None] - values[None]) ** 2
    middle = np.cumsum(totals_V) - totals_V / 2  # rank of a value's middle; equals the sum between, less the halves
    return (middle[:, None] - middle[None]) ** 2


RESAMPLES = 1000  # of the bootstrap


def bootstrap(values: Sequence[float], seed: int = 0, decimals: int = 2) -> list[float]:
    """95 % interval of the mean by resampling videos; the same for the same values."""
    drawn = np.random.default_rng(seed).choice(np.asarray(values, float), (RESAMPLES, len(values)))
    return [round(float(edge), decimals) for edge in np.percentile(drawn.mean(1), (2.5, 97.5))]


def interval_over_seeds(rows: Sequence[Mapping[str, Any]], key: str = "overall") -> list[float]:
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
