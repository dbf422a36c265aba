"""What judges judge by."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from data_recipes.rows import Row

CRITERIA = ("faithfulness", "quality", "preservation")
"""Each from 0 to 10."""


@dataclass(frozen=True)
class Judgement:
    """What a judge says of a pair.

    Attributes:
        scores: criterion to a number in [0, 10].
        comment: why.
        failure: why there is no judgement; empty if there is one.
    """

    scores: dict[str, float] = field(default_factory=dict)
    comment: str = ""
    failure: str = ""


class Judge(Protocol):
    """What judges pairs."""

    def identity(self) -> Any:
        """All that decides its judgements, as JSON."""

    def judge(self, rows: Sequence[Row], images: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Judgement]:
        """One judgement for each row with its source and target, uint8 ``[H, W, 3]``."""

    def estimate(self, rows: int) -> str:
        """What ``rows`` judgements will cost, in words."""
