"""Hands raters their questions, and takes their answers."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imvideoedit.evaluation.edits.manifest import EditRow
from imvideoedit.evaluation.study.plan import Item, Mode, blind, items_of, order_for, rater_key
from imvideoedit.evaluation.study.ratings import Rating, Ratings


@dataclass(frozen=True)
class Question:
    """What a rater sees.

    Attributes:
        item: of the plan, its edits from left to right.
        number, count: its place among all.
        source: a blind copy.
        edited: blind copies.
        asked: when, by the monotonic clock.
    """

    item: Item
    number: int
    count: int
    source: Path
    edited: tuple[Path, ...]
    asked: float = field(default_factory=time.monotonic)

    @property
    def instruction(self) -> str:
        """What was to change."""
        return self.item.rows[0].instruction


class Desk:
    """The questions of a study. Several raters may answer at once.

    Args:
        rows: edits of all methods.
        mode: ``ratings`` or ``pairs``.
        folder: for blind copies and answers.
        seed: of the orders and the names of the copies.
    """

    def __init__(self, rows: Sequence[EditRow], mode: Mode, folder: Path, seed: int) -> None:
        self.items, self.mode = items_of(rows, mode), mode
        self.ratings = Ratings(folder / "ratings")
        self.media = folder / "media"
        self._seed = seed

    def prepare(self) -> None:
        """Make the blind copies.

        Raises:
            UserError: a video cannot be read.
        """
        for item in self.items:
            for row in item.rows:
                assert row.edited is not None
                for path in (row.source, row.edited):
                    blind(path, self.media, self._seed)

    def next_for(self, name: str) -> Question | None:
        """The first question that a rater has not answered, in that rater's order; None where all are."""
        rater = rater_key(name)
        answered = self.ratings.answered(rater)
        for item in order_for(self.items, rater, self._seed):
            if item.key not in answered:
                source, *edited = (
                    blind(path, self.media, self._seed)
                    for path in (item.rows[0].source, *(row.edited for row in item.rows if row.edited))
                )
                return Question(item, len(answered) + 1, len(self.items), source, tuple(edited))
        return None

    def answer(self, name: str, question: Question, value: float) -> None:
        """Keep an answer."""
        methods = tuple(row.method for row in question.item.rows)
        seconds = round(time.monotonic() - question.asked, 1)
        self.ratings.write(Rating(rater_key(name), question.item.key, methods, value, seconds))
