"""Intervals, tests and agreement against published examples and scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from imvideoedit.evaluation.edits.manifest import EditRow
from imvideoedit.evaluation.edits.scored_edits import ScoredEdit
from imvideoedit.evaluation.page.estimates import compare_with_first, estimate_of
from imvideoedit.evaluation.reporting.statistics import holm, krippendorff, wilcoxon, wilson

N = np.nan
KRIPPENDORFF_2011 = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
    [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
]


@pytest.mark.parametrize("level, alpha", [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_that_of_krippendorffs_own_example(level, alpha):
    assert krippendorff(np.array(KRIPPENDORFF_2011), level) == pytest.approx(alpha, abs=5e-4)


@given(st.integers(0, 10_000))
@settings(max_examples=15)
def test_alpha_is_one_for_full_agreement_and_near_zero_for_chance(seed):
    draw = np.random.default_rng(seed)
    values = draw.integers(1, 6, 150)
    assert krippendorff(np.stack([values] * 3)) == pytest.approx(1)
    assert abs(krippendorff(draw.integers(1, 6, (3, 150)))) < 0.25


def test_alpha_is_negative_for_systematic_disagreement_and_unknown_without_overlap():
    assert krippendorff(np.array([[1, 5, 1, 5], [5, 1, 5, 1]])) < 0
    assert np.isnan(krippendorff(np.array([[1, N], [N, 2]])))
    assert np.isnan(krippendorff(np.array([[3, 3], [3, 3]])))


def test_wilcoxon_is_scipys_without_the_pairs_that_do_not_differ():
    first, second = np.array([5, 4, 4, 3, 5, 2, 4.0]), np.array([3, 4, 1, 2, 4, 3, 2.0])
    different = first != second
    assert wilcoxon(first, second) == stats.wilcoxon(first[different], second[different]).pvalue
    assert wilcoxon([1, 2], [1, 2]) == 1 and np.isnan(wilcoxon([], []))


def test_holm_is_the_textbooks_step_down():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([N, 0.02])[1] == 0.02 and np.isnan(holm([N, 0.02])[0]) and holm([]) == []


def test_wilson_holds_the_share_and_never_leaves_zero_to_one():
    assert wilson(8, 10) == pytest.approx((0.490, 0.943), abs=1e-3)
    assert wilson(0, 5)[0] == pytest.approx(0, abs=1e-12) and wilson(0, 0) == (0, 1)
    assert wilson(8.5, 10) == pytest.approx((0.541, 0.965), abs=1e-3), "a tie counts half"


def test_methods_are_compared_on_the_edits_that_both_have():
    def of(method: str, values: dict[str, float]) -> list[ScoredEdit]:
        return [
            ScoredEdit(EditRow(name, None, "", method=method), {"judge.total": value}) for name, value in values.items()
        ]

    first = {f"{n}": 50.0 + n for n in range(12)}
    better = {name: value + 5 + int(name) % 3 for name, value in first.items()}
    scored = [*of("base", first), *of("better", better | {"extra": 0.0}), *of("same", dict(first))]
    found = {one.method: one for one in compare_with_first(scored, ["judge.total"])}
    assert found["better"].pairs == 12 and found["better"].difference.mean == pytest.approx(6)
    assert found["better"].significant and not found["same"].significant
    assert found["better"].p == pytest.approx(2 * wilcoxon(list(better.values()), list(first.values())))
    assert estimate_of(scored, "base", "none") is None
    assert estimate_of(of("even", {"a": 2.0, "b": 2.0}), "even", "judge.total") == (2, 2, 2)
