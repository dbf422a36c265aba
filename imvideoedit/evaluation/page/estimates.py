"""Means, intervals and comparisons of methods."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from imvideoedit.evaluation.edits.scored_edits import ScoredEdit
from imvideoedit.evaluation.reporting.statistics import Estimate, bootstrap, estimate, holm, wilcoxon

HEADLINES = ("judge.total", "study.rating", "study.preferred", "second_judge.total")
DECIMALS = 4


@dataclass(frozen=True)
class Comparison:
    """A method against the first one, on the edits that both have.

    Attributes:
        difference: of the means, with its interval.
        pairs: number of these edits.
        p: of the paired Wilcoxon signed-rank test, corrected by Holm over all comparisons of the report.
    """

    method: str
    measure: str
    difference: Estimate
    pairs: int
    p: float

    @property
    def significant(self) -> bool:
        """At the 5 % level."""
        return self.p < 0.05


def methods_of(edits: Sequence[ScoredEdit]) -> list[str]:
    """The methods, in order of appearance."""
    return list(dict.fromkeys(edit.row.method for edit in edits))


def tasks_of(edits: Sequence[ScoredEdit]) -> list[str]:
    """The tasks that are named, in order of appearance."""
    return [task for task in dict.fromkeys(edit.row.task for edit in edits) if task]


def headline(measures: Sequence[str]) -> str | None:
    """The measure that ranks methods: a judge's total or people's ratings, else the first; None if there is none."""
    return next((name for name in HEADLINES if name in measures), measures[0] if measures else None)


def values_of(edits: Sequence[ScoredEdit], method: str, measure: str, task: str | None = None) -> dict[str, float]:
    """Edit -> value, of all tasks if None."""
    return {
        edit.row.id: edit.values[measure]
        for edit in edits
        if edit.row.method == method and measure in edit.values and task in (None, edit.row.task)
    }


def estimate_of(edits: Sequence[ScoredEdit], method: str, measure: str, task: str | None = None) -> Estimate | None:
    """Mean and interval of a method's values; None if there is none."""
    return _estimate(list(values_of(edits, method, measure, task).values()))


def compare_with_first(edits: Sequence[ScoredEdit], measures: Sequence[str]) -> list[Comparison]:
    """Every other method against the first one, in every measure."""
    first, *others = methods_of(edits)
    found: list[Comparison] = []
    for measure in measures:
        base = values_of(edits, first, measure)
        for method in others:
            own = values_of(edits, method, measure)
            shared = [name for name in own if name in base]
            difference = _estimate([own[name] - base[name] for name in shared])
            if difference is not None:
                p = wilcoxon([own[name] for name in shared], [base[name] for name in shared])
                found.append(Comparison(method, measure, difference, len(shared), p))
    corrected = holm([comparison.p for comparison in found])
    return [replace(comparison, p=p) for comparison, p in zip(found, corrected, strict=True)]


def _estimate(values: Sequence[float]) -> Estimate | None:
    return estimate(float(np.mean(values)), bootstrap(values, decimals=DECIMALS)) if values else None
