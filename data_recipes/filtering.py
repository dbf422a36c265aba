"""The third stage: cheap rules first, then a judge."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from data_recipes.criteria import Judge, Judgement
from data_recipes.rows import Row, digest, rejected
from data_recipes.rules import PixelRules, TextRules, measure
from data_recipes.stages import Inputs
from imvideoedit.common.errors import UserError
from imvideoedit.video.images import load_rgb


@dataclass(frozen=True)
class Filter:
    """The stage that gives verdicts; pictures stay where they are.

    Args:
        texts, pixels: the rules.
        judge: whose scores decide.
        accept: least score on each criterion.
        crossed: further judges by name, who do not decide, to compare with; see ``data_recipes.agreement``.
        crossed_share: share of the judged pairs that they see too, by a hash of the pair.

    Raises:
        UserError: ``accept`` is not in [0, 10], or ``crossed_share`` not in [0, 1].
    """

    texts: TextRules
    pixels: PixelRules
    judge: Judge
    accept: float = 6.0
    crossed: Mapping[str, Judge] = field(default_factory=dict)
    crossed_share: float = 0.05
    name: ClassVar[str] = "filter"
    inputs: ClassVar[Inputs] = {"synthesize": None}

    def __post_init__(self) -> None:
        if not 0 <= self.accept <= 10:
            raise UserError(f"filter.accept is {self.accept}; it must be in [0, 10]")
        if not 0 <= self.crossed_share <= 1:
            raise UserError(f"filter.crossed_share is {self.crossed_share}; it must be in [0, 1]")

    def identity(self, index: int, out: Path) -> Any:
        """Rules and judges."""
        crossed = {name: judge.identity() for name, judge in self.crossed.items()}
        pixels = [{task: {**limits} for task, limits in self.pixels.bounds.items()}, self.pixels.least_side]
        texts = [self.texts.instruction_words, list(self.texts.prompt_words), self.texts.shared]
        judged = [self.judge.identity(), self.accept, crossed, self.crossed_share if crossed else 0]
        return [texts, json.loads(json.dumps(pixels, default=list)), judged]

    def estimate(self, rows: int) -> str:
        """Of all judges."""
        judges = [self.judge.estimate(rows)]
        judges += [judge.estimate(round(rows * self.crossed_share)) for judge in self.crossed.values()]
        return "; ".join(text for text in judges if text)

    def make(self, index: int, *inputs: list[Row]) -> list[Row]:
        """A verdict for each pair that was made."""
        (pairs,) = inputs
        verdicts, judged, images = [], [], []
        for pair in pairs:
            if not pair["accepted"]:
                continue
            verdict, pictures = self._by_rules(pair)
            verdicts.append(verdict)
            if pictures is not None:
                judged.append(pair)
                images.append(pictures)
        scored = dict(zip([pair["id"] for pair in judged], self.judge.judge(judged, images), strict=True))
        crossed = self._crossed(judged, images)
        return [
            self._decide(verdict, scored.get(verdict["id"]), crossed.get(verdict["id"], {})) for verdict in verdicts
        ]

    def _by_rules(self, pair: Row) -> tuple[Row, tuple[np.ndarray, np.ndarray] | None]:
        """A verdict so far, and the pictures if no rule is broken."""
        verdict: Row = {"id": pair["id"], "scores": "{}", "comment": "", "crossed": "{}", "measures": "{}"}
        verdict |= {"accepted": True, "reason": ""}
        problem = self.texts.problem(pair) or self.pixels.sizes(pair)
        if problem:
            return rejected(verdict, problem), None
        try:
            source, target = (load_rgb(pair[name], f"{name} of {pair['id']}") for name in ("source", "target"))
        except UserError as error:
            return rejected(verdict, f"unreadable image: {error}"), None
        measures = measure(source, target)
        verdict["measures"] = json.dumps(measures)
        problem = self.pixels.problem(pair["task"], measures)
        return (rejected(verdict, problem), None) if problem else (verdict, (source, target))

    def _crossed(self, rows: list[Row], images: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, dict[str, Any]]:
        """Pair to judge to scores."""
        chosen = [i for i, row in enumerate(rows) if _draw(row["id"]) < self.crossed_share]
        found: dict[str, dict[str, Any]] = {rows[i]["id"]: {} for i in chosen}
        for name, judge in self.crossed.items():
            said = judge.judge([rows[i] for i in chosen], [images[i] for i in chosen])
            for i, judgement in zip(chosen, said, strict=True):
                if not judgement.failure:
                    found[rows[i]["id"]][name] = judgement.scores
        return found

    def _decide(self, verdict: Row, judgement: Judgement | None, crossed: dict[str, Any]) -> Row:
        if judgement is None:
            return verdict
        if judgement.failure:
            return rejected(verdict, judgement.failure)
        verdict = verdict | {
            "scores": json.dumps(judgement.scores),
            "comment": judgement.comment,
            "crossed": json.dumps(crossed),
        }
        low = {name: value for name, value in judgement.scores.items() if value < self.accept}
        if low:
            scores = ", ".join(f"{name} {value:g}" for name, value in low.items())
            return rejected(verdict, f"judge below {self.accept:g}: {scores}")
        return verdict


def _draw(name: str) -> float:
    """A number in [0, 1) that a name decides."""
    return int(digest("crossed", name), 16) / 16**16
