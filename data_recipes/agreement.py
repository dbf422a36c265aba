"""``python -m data_recipes.agreement OUT``: how judges agree with each other and with reviewers.

As in the paper's Table 6: Pearson's correlation of two judges' raw scores; and of their scores as bits (1 from the
threshold on), the mean absolute error and its variance over pairs. The paper does not define the variance. If a pair's
error were one bit, a mean of 0.185 would imply a variance of 0.15, but the paper has 0.113; so it is taken to be the
mean over the criteria.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_recipes.decisions import Decisions, majority_accepts
from data_recipes.rows import CRITERIA, crossed_of, scores_of
from data_recipes.stages import shards_of
from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.common.escaping import markdown_text
from imvideoedit.common.terminal import printable

STEPS = np.arange(0, 10.25, 0.5)  # candidate thresholds


@dataclass(frozen=True)
class Agreement:
    """Of one judge with the deciding one, over ``pairs`` pairs; NaN where undefined."""

    pairs: int
    pearson: float
    mean_error: float
    variance: float


def agreement(judge_PC: np.ndarray, other_PC: np.ndarray, threshold: float = 6.0) -> Agreement:
    """Compare two judges' scores, ``[pairs, criteria]`` each, of at least one pair."""
    varies = judge_PC.std() > 0 and other_PC.std() > 0
    pearson = float(np.corrcoef(judge_PC.ravel(), other_PC.ravel())[0, 1]) if varies else np.nan
    errors_P = ((judge_PC >= threshold) != (other_PC >= threshold)).mean(1)
    return Agreement(len(judge_PC), pearson, float(errors_P.mean()), float(errors_P.var()))


def crossed(out: Path, threshold: float = 6.0) -> dict[str, Agreement]:
    """Each further judge compared with the deciding one."""
    pairs: dict[str, list[tuple[list[float], list[float]]]] = {}
    for row in shards_of(out, "filter").rows(["scores", "crossed"]):
        scores = scores_of(row)
        for name, other in crossed_of(row).items():
            pairs.setdefault(name, []).append(([scores[c] for c in CRITERIA], [other[c] for c in CRITERIA]))
    return {
        name: agreement(np.array([a for a, _ in found]), np.array([b for _, b in found]), threshold)
        for name, found in sorted(pairs.items())
    }


def reviewed(out: Path) -> Iterator[tuple[float, bool]]:
    """For each judged and reviewed pair: the judge's lowest score, and whether reviewers accept it."""
    decisions = Decisions(out / "decisions").read()
    for row in shards_of(out, "filter").rows(["id", "scores"]):
        scores = scores_of(row)
        if scores and row["id"] in decisions:
            yield min(scores.values()), majority_accepts(decisions[row["id"]])


def calibrate(pairs: Sequence[tuple[float, bool]], current: float = 6.0) -> tuple[float, float, float]:
    """How often judge and reviewers agree at the current threshold, the threshold at which they agree most often (of
    equals the one nearest to the current), and how often at that one; of at least one pair (lowest score, accepted).
    """
    scores = np.array([score for score, _ in pairs])
    human = np.array([accept for _, accept in pairs])

    def share(threshold: float) -> float:
        return float(((scores >= threshold) == human).mean())

    best = max(STEPS, key=lambda step: (share(step), -abs(step - current)))
    return share(current), float(best), share(best)


def between_reviewers(out: Path) -> tuple[int, float]:
    """The number of double reviews (two decisions on one pair), and the share that agrees; NaN without any."""
    same = []
    for decisions in Decisions(out / "decisions").read().values():
        accepts = [decision.accept for decision in decisions.values()]
        same += [a == b for a, b in itertools.combinations(accepts, 2)]
    return len(same), float(np.mean(same)) if same else np.nan


def describe_reviews(out: Path, threshold: float) -> list[str]:
    """How often reviewers agree with the judge and with each other, in sentences; none before the first review."""
    pairs, lines = list(reviewed(out)), []
    if pairs:
        now, best, then = calibrate(pairs, threshold)
        lines.append(f"Reviewers agree with the judge on {now:.1%} of {len(pairs)} pairs at {threshold:g}")
        lines.append(f"They would agree most, on {then:.1%}, at a threshold of {best:g}")
    count, share = between_reviewers(out)
    if count:
        lines.append(f"Reviewers agree with each other on {share:.1%} of {count} double reviews")
    return lines


def describe(out: Path, threshold: float = 6.0) -> str:
    """The agreement of judges and of reviewers, as lines of Markdown."""
    reviews = describe_reviews(out, threshold) or [f"No pair has been reviewed; python -m data_recipes.review {out}"]
    return "\n".join([_table(crossed(out, threshold)), *reviews])


def _table(found: Mapping[str, Agreement]) -> str:
    if not found:
        return "There is no further judge; name one in filter.crossed"
    rows = [
        f"| {markdown_text(name)} | {each.pearson:.3f} | {each.mean_error:.3f} | {each.variance:.3f} | {each.pairs} |"
        for name, each in found.items()
    ]
    return "\n".join(["| judge | Pearson | MAE | variance | pairs |", "|---|---|---|---|---|", *rows])


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = CommandLine(prog="python -m data_recipes.agreement", description="Agreement of judges and reviewers.")
    parser.add_argument("out", type=Path, help="a recipe's folder")
    parser.add_argument("--threshold", type=float, default=6.0, help="score from which a pair is accepted (default 6)")
    arguments = parser.parse_args(argv)
    if not shards_of(arguments.out, "filter").count():
        raise UserError(f"{arguments.out} holds no filtered pairs; run the recipe up to stage=filter")
    print(printable(describe(arguments.out, arguments.threshold)))


if __name__ == "__main__":
    main()
