"""Confidence intervals, paired tests, and the agreement of raters.

Legend: R raters, U units, V values.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

Level = Literal["nominal", "ordinal", "interval"]
RESAMPLES = 1000  # of the bootstrap


class Estimate(NamedTuple):
    """A mean over videos with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def estimate(mean: float, interval: Sequence[float]) -> Estimate:
    """A mean with its interval, which encloses it despite rounding."""
    low, high = interval
    return Estimate(mean, min(low, mean), max(high, mean))


def mean_of_known(values: Iterable[float]) -> float:
    """Mean of the values that are not NaN; NaN if there is none."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def wilcoxon(first: Sequence[float], second: Sequence[float]) -> float:
    """p-value of the paired, two-sided Wilcoxon signed-rank test; pairs without a difference are left out.

    1 if no pair differs, NaN if there is no pair.
    """
    differences = np.asarray(first, float) - np.asarray(second, float)
    if not len(differences):
        return math.nan
    differences = differences[differences != 0]
    return float(stats.wilcoxon(differences).pvalue) if len(differences) else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979); NaN stays NaN and does not count."""
    corrected = np.array(p_values, float)
    known = ~np.isnan(corrected)
    corrected[known] = multipletests(corrected[known], method="holm")[1]
    return corrected.tolist()


def wilson(successes: float, count: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927); (0, 1) for a count of 0.

    Args:
        successes: may be fractional, since a tie counts half; ``scipy.stats.binomtest`` takes integers only.
    """
    if count == 0:
        return 0.0, 1.0
    low, high = proportion_confint(successes, count, method="wilson")
    return float(low), float(high)


def krippendorff(ratings_RU: np.ndarray, level: Level = "ordinal") -> float:
    """Krippendorff's alpha (2011, "Computing Krippendorff's Alpha-Reliability"): 1 - D_observed / D_expected.

    1 for full agreement, 0 for chance, negative for systematic disagreement; NaN if no unit has two ratings or all
    ratings are equal. Our own: neither scipy nor statsmodels has it, and the package ``krippendorff`` is one more
    dependency for 20 lines.

    Args:
        ratings_RU: NaN where a rater did not rate a unit; units with fewer than two ratings are left out.
        level: distance of two values: equal or not, by rank, or their squared difference.
    """
    ratings_RU = np.asarray(ratings_RU, float)
    units = [column[~np.isnan(column)] for column in ratings_RU.T]
    units = [unit for unit in units if len(unit) > 1]
    if not units:
        return math.nan
    values = np.unique(np.concatenate(units))
    counts_UV = np.array([[np.sum(unit == value) for value in values] for unit in units], float)
    sizes_U = counts_UV.sum(1)
    coincidences_VV = np.einsum("uv,uw,u->vw", counts_UV, counts_UV, 1 / (sizes_U - 1))
    coincidences_VV -= np.diag((counts_UV / (sizes_U - 1)[:, None]).sum(0))
    totals_V = coincidences_VV.sum(1)
    distance_VV = _squared_distance(values, totals_V, level)
    count = totals_V.sum()
    expected = (np.outer(totals_V, totals_V) * distance_VV).sum() / (count - 1)
    observed = (coincidences_VV * distance_VV).sum()
    return float(1 - observed / expected) if expected > 0 else math.nan


def _squared_distance(values: np.ndarray, totals_V: np.ndarray, level: Level) -> np.ndarray:
    """Squared distance of every pair of values."""
    if level == "nominal":
        return 1.0 - np.eye(len(values))
    if level == "interval":
        return (values[:, None] - values[None]) ** 2
    middle = np.cumsum(totals_V) - totals_V / 2  # mean rank of a value; differences equal Krippendorff's sums
    return (middle[:, None] - middle[None]) ** 2


def bootstrap(values: Sequence[float], decimals: int = 2) -> list[float]:
    """95 % bootstrap interval of the mean over videos; deterministic."""
    drawn = np.random.default_rng(0).choice(np.asarray(values, float), (RESAMPLES, len(values)))
    return [round(float(edge), decimals) for edge in np.percentile(drawn.mean(1), (2.5, 97.5))]


def interval_over_seeds(rows: Sequence[Mapping[str, Any]], key: str = "overall") -> list[float]:
    """95 % interval of the mean over training seeds and videos, by resampling seeds and videos; deterministic.

    All seeds edit the same videos, so a drawn video is drawn for every drawn seed, with all its lengths.

    Args:
        rows: with ``seed``, ``task``, ``video`` and ``key``; NaN counts as not measured.

    Returns:
        Lower and upper edge, NaN if nothing is known. With one seed the interval covers the videos alone.
    """
    seeds = _numbered(row["seed"] for row in rows)
    videos = _numbered((row["task"], row["video"]) for row in rows)
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


def _numbered(names: Iterable[Hashable]) -> dict[Hashable, int]:
    return {name: place for place, name in enumerate(dict.fromkeys(names))}
