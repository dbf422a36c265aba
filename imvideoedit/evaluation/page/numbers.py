"""Means, intervals and comparisons of methods."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imvideoedit.evaluation.edits.scored import Scored
from imvideoedit.evaluation.reporting.statistics import bootstrap, holm, wilcoxon

HEADLINES = ("judge.total", "study.rating", "study.preferred", "second_judge.total")
DECIMALS = 4


@dataclass(frozen=True)
class Estimate:
    """A mean over videos with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Comparison:
    """A method against the first one, on the edits that both have.

    Attributes:
        difference: of the means, with its interval.
        p: of the paired Wilcoxon signed-rank test, corrected by Holm over the whole report's comparisons.
    """

    method: str
    measure: str
    difference: Estimate
    p: float

    @property
    def told_apart(self) -> bool:
        """At the 5 % level."""
        return self.p < 0.05


def methods_of(scored: Sequence[Scored]) -> list[str]:
    """In the order of the lists."""
    return list(dict.fromkeys(one.row.method for one in scored))


def tasks_of(scored: Sequence[Scored]) -> list[str]:
    """Those that are named."""
    return [task for task in dict.fromkeys(one.row.task for one in scored) if task]


def headline(measures: Sequence[str]) -> str | None:
    """The measure that methods are ranked by: a judge's total or people's ratings, else the first; None for none."""
    return next((name for name in HEADLINES if name in measures), measures[0] if measures else None)


def values_of(scored: Sequence[Scored], method: str, measure: str, task: str | None = None) -> dict[str, float]:
    """Edit -> value."""
    return {
        one.row.id: one.numbers[measure]
        for one in scored
        if one.row.method == method and measure in one.numbers and task in (None, one.row.task)
    }


def estimate(values: Sequence[float]) -> Estimate | None:
    """None where there is no value."""
    if not len(values):
        return None
    mean = float(np.mean(values))
    low, high = bootstrap(values, decimals=DECIMALS)
    return Estimate(mean, min(low, mean), max(high, mean), len(values))


def compare(scored: Sequence[Scored], measures: Sequence[str]) -> list[Comparison]:
    """Every method but the first against the first, in every measure."""
    first, *others = methods_of(scored)
    found: list[tuple[str, str, Estimate, float]] = []
    for measure in measures:
        base = values_of(scored, first, measure)
        for method in others:
            own = values_of(scored, method, measure)
            shared = [name for name in own if name in base]
            apart = estimate([own[name] - base[name] for name in shared])
            if apart is not None:
                p = wilcoxon([own[name] for name in shared], [base[name] for name in shared])
                found.append((method, measure, apart, p))
    corrected = holm([p for *_, p in found])
    return [
        Comparison(method, measure, apart, p) for (method, measure, apart, _), p in zip(found, corrected, strict=True)
    ]
