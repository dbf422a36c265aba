"""What judges score, and the interface of a judge."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from data_recipes.rows import Row
from data_recipes.synthesis import ImagePair

CRITERIA = ("faithfulness", "quality", "preservation")
"""Each from 0 to 10."""


@dataclass(frozen=True)
class Judgement:
    """Scores in [0, 10] by criterion, with a comment; or, without scores, why there is no judgement."""

    scores: dict[str, float] = field(default_factory=dict)
    comment: str = ""
    failure: str = ""


class Judge(ABC):
    """Scores pairs."""

    @property
    @abstractmethod
    def models(self) -> dict[str, str]:
        """Names of the models it uses, by their part."""

    @abstractmethod
    def identity(self) -> Any:
        """Everything that decides its judgements, as JSON."""

    @abstractmethod
    def judge(self, rows: Sequence[Row], images: Sequence[ImagePair]) -> list[Judgement]:
        """One judgement for each row with its image pair."""

    def estimate(self, rows: int) -> str:
        """The cost of ``rows`` judgements, in words; empty if they are free."""
        return ""
