"""The third stage: cheap rules first, then a judge."""

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from data_recipes.rows import Row, digest, rejected
from data_recipes.rules import PixelRules, TextRules, pixel_measures
from data_recipes.stages import Component, Stage
from data_recipes.synthesis import ImagePair, decode
from imvideoedit.common.errors import UserError


@dataclass(frozen=True)
class Judgement:
    """Scores in [0, 10] by criterion, with a comment; or, without scores, why there is no judgement."""

    scores: dict[str, float] = field(default_factory=dict)
    comment: str = ""
    failure: str = ""


class Judge(Component):
    """Scores pairs."""

    @abstractmethod
    def judge(self, rows: Sequence[Row], images: Sequence[ImagePair]) -> list[Judgement]:
        """One judgement for each row with its image pair."""


@dataclass(frozen=True)
class Filter(Stage):
    """Gives a verdict on each pair, without its images.

    Args:
        texts, pixels: the rules.
        judge: whose scores decide.
        accept: least score on each criterion.
        crossed: further judges by name, for comparison only; see ``data_recipes.agreement``.
        crossed_share: share of the judged pairs that they see too, chosen by a hash of the pair.

    Raises:
        UserError: ``accept`` is not in [0, 10], or ``crossed_share`` not in [0, 1].
    """

    texts: TextRules
    pixels: PixelRules
    judge: Judge
    accept: float = 6.0
    crossed: Mapping[str, Judge] = field(default_factory=dict)
    crossed_share: float = 0.05
    name: ClassVar = "filter"
    inputs: ClassVar = {"synthesize": None}

    def __post_init__(self) -> None:
        if not 0 <= self.accept <= 10:
            raise UserError(f"filter.accept is {self.accept}; it must be in [0, 10]")
        if not 0 <= self.crossed_share <= 1:
            raise UserError(f"filter.crossed_share is {self.crossed_share}; it must be in [0, 1]")

    def identity(self, index: int, out: Path) -> Any:
        crossed = {name: judge.identity() for name, judge in self.crossed.items()}
        judged = [self.judge.identity(), self.accept, crossed, self.crossed_share if crossed else 0]
        return [asdict(self.texts), asdict(self.pixels), judged]

    def estimate(self, rows: int) -> str:
        estimates = [self.judge.estimate(rows)]
        estimates += [judge.estimate(round(rows * self.crossed_share)) for judge in self.crossed.values()]
        return "; ".join(text for text in estimates if text)

    def make(self, index: int, *inputs: list[Row]) -> list[Row]:
        verdicts: list[Row] = []
        judged: dict[str, tuple[Row, ImagePair]] = {}
        for pair in inputs[0]:
            if pair["accepted"]:
                verdict, images = self._by_rules(pair)
                verdicts.append(verdict)
                if images is not None:
                    judged[pair["id"]] = (pair, images)
        judgements = _ask(self.judge, judged)
        drawn = {name: item for name, item in judged.items() if _draw(name) < self.crossed_share}
        crossed = {name: _ask(judge, drawn) for name, judge in self.crossed.items()}
        return [self._decide(verdict, judgements.get(verdict["id"]), crossed) for verdict in verdicts]

    def _by_rules(self, pair: Row) -> tuple[Row, ImagePair | None]:
        """A verdict so far, and the images if no rule is broken."""
        verdict: Row = {"id": pair["id"], "scores": "{}", "comment": "", "crossed": "{}", "measures": "{}"}
        verdict |= {"accepted": True, "reason": ""}
        problem = self.texts.problem(pair) or self.pixels.sizes(pair)
        if problem:
            return rejected(verdict, problem), None
        images = decode(pair)
        if isinstance(images, str):
            return rejected(verdict, images), None
        measures = pixel_measures(*images)
        verdict["measures"] = json.dumps(measures)
        problem = self.pixels.problem(pair["task"], measures)
        return (rejected(verdict, problem), None) if problem else (verdict, images)

    def _decide(self, verdict: Row, judgement: Judgement | None, crossed: Mapping[str, Mapping[str, Judgement]]) -> Row:
        if judgement is None:
            return verdict
        if judgement.failure:
            return rejected(verdict, judgement.failure)
        others = {name: found[verdict["id"]] for name, found in crossed.items() if verdict["id"] in found}
        verdict = verdict | {
            "scores": json.dumps(judgement.scores),
            "comment": judgement.comment,
            "crossed": json.dumps({name: other.scores for name, other in others.items() if not other.failure}),
        }
        low = {name: value for name, value in judgement.scores.items() if value < self.accept}
        if low:
            scores = ", ".join(f"{name} {value:g}" for name, value in low.items())
            return rejected(verdict, f"judge below {self.accept:g}: {scores}")
        return verdict


def _ask(judge: Judge, pairs: Mapping[str, tuple[Row, ImagePair]]) -> dict[str, Judgement]:
    """Judgements by the pair's id."""
    judgements = judge.judge([row for row, _ in pairs.values()], [images for _, images in pairs.values()])
    return dict(zip(pairs, judgements, strict=True))


def _draw(name: str) -> float:
    """A number in [0, 1) that depends on a name."""
    return int(digest("crossed", name), 16) / 16**16
