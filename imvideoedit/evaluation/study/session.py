"""Gives raters their questions, and stores their answers."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imvideoedit.evaluation.edits.manifest import EditRow
from imvideoedit.evaluation.study.plan import Item, Mode, blind_copy, items_of, order_for, rater_key
from imvideoedit.evaluation.study.ratings import Rating, Ratings


@dataclass(frozen=True)
class Question:
    """A question as it is shown.

    Attributes:
        item: of the plan, its edits from left to right.
        number, count: this is question ``number`` of ``count``.
        source, edited: blind copies.
        asked: time of the monotonic clock.
    """

    item: Item
    number: int
    count: int
    source: Path
    edited: tuple[Path, ...]
    asked: float = field(default_factory=time.monotonic)

    @property
    def instruction(self) -> str:
        """The instruction of the edit."""
        return self.item.rows[0].instruction


class RatingSession:
    """The questions of a study and their answers; several raters may answer at the same time.

    Args:
        rows: edits of all methods.
        mode: ``ratings`` or ``pairs``.
        folder: for blind copies and answers.
        seed: of the raters' orders and of the names of the copies.
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
                    blind_copy(path, self.media, self._seed)

    def next_for(self, name: str) -> Question | None:
        """The first unanswered question in a rater's own order; None if all are answered."""
        rater = rater_key(name)
        answered = self.ratings.answered(rater)
        for item in order_for(self.items, rater, self._seed):
            if item.key not in answered:
                source, *edited = (
                    blind_copy(path, self.media, self._seed)
                    for path in (item.rows[0].source, *(row.edited for row in item.rows if row.edited))
                )
                return Question(item, len(answered) + 1, len(self.items), source, tuple(edited))
        return None

    def answer(self, name: str, question: Question, value: float) -> None:
        """Store an answer."""
        methods = tuple(row.method for row in question.item.rows)
        seconds = round(time.monotonic() - question.asked, 1)
        self.ratings.write(Rating(rater_key(name), question.item.key, methods, value, seconds))
