"""Results of a study: mean opinion scores, preferences, and the agreement of raters.

Legend: R raters, U units.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from scipy import stats

from imvideoedit.evaluation.edits.manifest import EditRow
from imvideoedit.evaluation.edits.scored_edits import ScoredEdit
from imvideoedit.evaluation.reporting.statistics import Level, interval_over_seeds, krippendorff, wilson
from imvideoedit.evaluation.reporting.table import Table
from imvideoedit.evaluation.study.plan import Item, Mode
from imvideoedit.evaluation.study.ratings import Rating


def scored_by_people(
    rows: Sequence[EditRow], items: Sequence[Item], ratings: Sequence[Rating], mode: Mode
) -> list[ScoredEdit]:
    """Every edit with ``study.rating``, the mean of its ratings, or ``study.preferred``, its share of preferences."""
    given = _values(items, ratings, mode)
    key = "study.rating" if mode == "ratings" else "study.preferred"
    return [ScoredEdit(row, {key: float(np.mean(given[row.name]))} if row.name in given else {}) for row in rows]


def opinion_table(items: Sequence[Item], ratings: Sequence[Rating]) -> Table:
    """Mean opinion score of each method; intervals from resampling raters, then edits."""
    row_of = {item.key: item.rows[0] for item in items}
    lines = []
    for method in dict.fromkeys(row.method for row in row_of.values()):
        own = [
            {"seed": one.rater, "task": row_of[one.item].task, "video": row_of[one.item].id, "rating": one.value}
            for one in ratings
            if row_of[one.item].method == method
        ]
        if own:
            low, high = interval_over_seeds(own, "rating")
            mean = float(np.mean([one["rating"] for one in own]))
            raters, edits = (str(len({one[key] for one in own})) for key in ("seed", "video"))
            lines.append([method, f"{mean:.2f}", f"{low:.2f} to {high:.2f}", str(len(own)), raters, edits])
    return Table("Mean opinion scores, 1 to 5", ["", "mean", "95 %", "ratings", "raters", "edits"], lines)


def preference_table(items: Sequence[Item], ratings: Sequence[Rating]) -> Table:
    """For every pair of methods: wins, ties, share won (a tie counts half) with Wilson's interval, and a sign test."""
    methods = list(dict.fromkeys(row.method for item in items for row in item.rows))
    lines = []
    for first, second in itertools.combinations(methods, 2):
        own = [_share(one, first) for one in ratings if set(one.methods) == {first, second}]
        if own:
            won, lost, share = own.count(1.0), own.count(0.0), float(np.mean(own))
            low, high = wilson(sum(own), len(own))
            p = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
            counts = [str(won), str(len(own) - won - lost), str(lost)]
            lines.append([f"{first} against {second}", *counts, f"{share:.2f} ({low:.2f} to {high:.2f})", f"{p:.3g}"])
    header = ["", "better", "equal", "worse", "share preferred (95 %)", "p (sign test)"]
    return Table("Preferences", header, lines)


def agreement_of_raters(items: Sequence[Item], ratings: Sequence[Rating], mode: Mode) -> float:
    """Krippendorff's alpha over all items: ordinal for ratings, nominal for choices; NaN if no item has two answers."""
    raters = {rater: place for place, rater in enumerate(dict.fromkeys(one.rater for one in ratings))}
    units = {item.key: place for place, item in enumerate(items)}
    first = {item.key: item.rows[0].method for item in items}
    values_RU = np.full((len(raters), len(units)), np.nan)
    for one in ratings:
        value = one.value if mode == "ratings" else _share(one, first[one.item])
        values_RU[raters[one.rater], units[one.item]] = value
    level: Level = "ordinal" if mode == "ratings" else "nominal"
    return krippendorff(values_RU, level)


def _share(one: Rating, method: str) -> float:
    """1 if the method was preferred to the other, 0.5 for neither."""
    return one.value if one.methods[0] == method else 1 - one.value


def _values(items: Sequence[Item], ratings: Sequence[Rating], mode: Mode) -> dict[str, list[float]]:
    rows_of = {item.key: item.rows for item in items}
    given: dict[str, list[float]] = {}
    for one in ratings:
        for row in rows_of[one.item]:
            value = one.value if mode == "ratings" else _share(one, row.method)
            given.setdefault(row.name, []).append(value)
    return given
