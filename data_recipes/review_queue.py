"""The pairs that reviewers decide on, in order; the review page without its components."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_recipes.agreement import describe_reviews
from data_recipes.decisions import Decision, Decisions
from data_recipes.rows import TEXTS, Row, crossed_of, digest, scores_of
from data_recipes.stages import shards_of
from imvideoedit.common.errors import UserError
from imvideoedit.video.images import load_rgb

ORDERS = ("random", "disagreement")


@dataclass(frozen=True)
class ReviewItem:
    """A pair as a reviewer sees it."""

    row: Row  # id, task and texts
    verdict: Row  # of the filter
    source: np.ndarray  # uint8 [H, W, 3]
    target: np.ndarray
    decision: Decision | None  # the reviewer's own

    @property
    def difference(self) -> np.ndarray:
        """uint8 ``[H, W]``: white where the two are equal, black where they differ by a third of the range or more."""
        change = np.abs(self.source.astype(np.int16) - self.target).max(-1)
        return (255 - np.minimum(3 * change, 255)).astype(np.uint8)

    @property
    def texts(self) -> dict[str, str]:
        """With the reviewer's corrections."""
        return {name: self.row[name] for name in TEXTS} | dict(self.decision.texts if self.decision else {})


class ReviewQueue:
    """The judged pairs in a recipe's folder, and the decisions on them; the judge accepts scores from ``accept`` on.

    Raises:
        UserError: there are no judged pairs.
    """

    def __init__(self, out: Path, accept: float, seed: int = 0) -> None:
        self._out, self._accept, self._seed = out, accept, seed
        self.decisions = Decisions(out / "decisions")
        self._places: dict[str, int] = {}
        self._ranks: dict[str, tuple[float, float]] = {}
        verdicts = shards_of(out, "filter")
        for index in range(verdicts.count()):
            for row in verdicts.read(index, ["id", "scores", "crossed"]):
                scores = scores_of(row)
                if scores:
                    self._places[row["id"]] = index
                    self._ranks[row["id"]] = self._rank(scores, crossed_of(row))
        if not self._places:
            raise UserError(f"{out} holds no judged pairs; run the recipe up to stage=filter")

    def _rank(self, scores: dict[str, float], crossed: dict[str, dict[str, float]]) -> tuple[float, float]:
        """Small where judges disagree, then where the judge is near the threshold."""
        lowest = [min(scores.values()), *(min(other.values()) for other in crossed.values())]
        return -float(np.std(lowest)), abs(lowest[0] - self._accept)

    def order(self, kind: str) -> list[str]:
        """The ids of all pairs: in random order, or first those on which judges disagree."""
        shuffled = sorted(self._places, key=lambda name: digest("review", self._seed, name))
        return shuffled if kind == "random" else sorted(shuffled, key=self._ranks.__getitem__)

    def next_open(self, order: Sequence[str], reviewer: str, start: int = 0) -> int:
        """The first place from ``start`` on, then from the beginning, without a decision of the reviewer."""
        decisions = self.decisions.read()
        places = [*range(start, len(order)), *range(start)]
        return next((place for place in places if reviewer not in decisions.get(order[place], {})), start % len(order))

    def item(self, name: str, reviewer: str) -> ReviewItem:
        """The pair with the id ``name``."""
        index = self._places[name]
        row = next(row for row in shards_of(self._out, "synthesize").read(index) if row["id"] == name)
        verdict = next(row for row in shards_of(self._out, "filter").read(index) if row["id"] == name)
        images = [load_rgb(row[part], f"{part} of {name}") for part in ("source", "target")]
        decision = self.decisions.read().get(name, {}).get(reviewer)
        return ReviewItem(row, verdict, images[0], images[1], decision)

    def decide(self, reviewer: str, item: ReviewItem, accept: bool, texts: dict[str, str]) -> None:
        """Store a decision, with the texts that differ from the pair's own.

        Raises:
            UserError: an invalid name of a reviewer, or a text is empty.
        """
        cleaned = {name: " ".join(text.split()) for name, text in texts.items()}
        for name, text in cleaned.items():
            if not text:
                raise UserError(f"{name.replace('_', ' ')} is empty; write one")
        corrected = {name: text for name, text in cleaned.items() if text != item.row[name]}
        self.decisions.write(reviewer.strip(), Decision(item.row["id"], accept, corrected))

    def progress(self, reviewer: str) -> str:
        """Counts of decisions, and agreement with the judge, in Markdown."""
        decisions = self.decisions.read()
        own = sum(reviewer in each for each in decisions.values())
        counts = f"{own} of {len(self._places):,} pairs by you, {len(decisions)} by all"
        return " · ".join([counts, *describe_reviews(self._out, self._accept)])
