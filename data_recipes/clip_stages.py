"""The stages of the clip recipe after its sources: proposals, masks, edits, verdicts.

Two tracks, as of FFP-300K (Sec. 3): local edits swap, modify or remove one object inside its mask; global ones change
the style and keep the geometry by a depth map.

Shapes: F frames, H W pixels.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from data_recipes.clip_models import ClipPainter, Depth, Masker
from data_recipes.clip_regions import control_of, region_of
from data_recipes.clip_rows import (
    KINDS,
    LOCAL,
    read_clip,
    read_clip_mask,
    strip,
    written,
)
from data_recipes.clip_sources import each
from data_recipes.clip_texts import ANSWER_TOKENS, CHARACTERS, propose
from data_recipes.clip_texts import identity as texts_identity
from data_recipes.filtering import Judge
from data_recipes.models import Model, rejection
from data_recipes.rows import Row, digest, rejected
from data_recipes.stages import Stage
from imvideoedit.clients.answers import Unanswered
from imvideoedit.common.errors import UserError


@dataclass(frozen=True)
class Proposals(Stage):
    """A vision-language model names an object or a style for each clip, and writes the texts of the edit.

    Raises:
        UserError: an unknown kind.
    """

    out: Path
    model: Model
    kinds: Sequence[str] = tuple(KINDS)  # of edits that each clip gets
    name: ClassVar = "proposals"
    inputs: ClassVar = {"sources": None}

    def __post_init__(self) -> None:
        wrong = [kind for kind in self.kinds if kind not in KINDS]
        if wrong or not self.kinds:
            raise UserError(f"proposals.kinds has {wrong or 'nothing'}; choose of {', '.join(KINDS)}")

    def identity(self, index: int, out: Path) -> Any:
        return [self.model.identity(), list(self.kinds), texts_identity()]

    def estimate(self, rows: int) -> str:
        return self.model.estimate(rows * len(self.kinds), CHARACTERS, 1, ANSWER_TOKENS)

    def make(self, index: int, *inputs: list[Row]) -> list[Row]:
        rows = [row | {"kind": kind, "task": KINDS[kind]} for row in inputs[0] for kind in self.kinds]
        return each(self._texts, rows, self.model.parallel)

    def _texts(self, row: Row) -> Row:
        try:
            texts = propose(self.model, strip(read_clip(self.out, row["source"])), row["kind"])
        except Unanswered as error:
            return rejected(row, rejection(error, "writer"))
        return row | texts | {"id": digest(row["id"], row["kind"], texts)}


@dataclass(frozen=True)
class Masks(Stage):
    """The mask of each local edit's object, in every frame.

    Raises:
        UserError: the shares are not in order in (0, 1).
    """

    out: Path
    masker: Masker
    least: float = 0.005  # share of the pixels of a clip that an object takes
    most: float = 0.6
    name: ClassVar = "masks"
    inputs: ClassVar = {"proposals": None}

    def __post_init__(self) -> None:
        if not 0 < self.least < self.most < 1:
            raise UserError(f"masks.least is {self.least} and most {self.most}; need 0 < least < most < 1")

    def identity(self, index: int, out: Path) -> Any:
        return [self.masker.identity(), self.least, self.most]

    def make(self, index: int, *inputs: list[Row]) -> list[Row]:
        return each(self._mask, inputs[0])

    def _mask(self, row: Row) -> Row:
        if row["kind"] not in LOCAL:
            return row
        found = self.masker.masks(read_clip(self.out, row["source"]), row["object"])
        if found is None:
            return rejected(row, f"mask: no {row['object']} was found")
        share = float((found > 127).mean())
        if not self.least <= share <= self.most:
            return rejected(row, f"mask: it covers {share:.1%} of the clip")
        key = digest(row["id"], self.masker.identity())
        return row | {"mask": written(self.out, "mask", key, lambda: found)}


@dataclass(frozen=True)
class Edits(Stage):
    """Paints the edited clips: inside the object's region, or all of it over the depth map."""

    out: Path
    painter: ClipPainter
    depth: Depth | None = None  # for styles
    seed: int = 0
    erosion: int = 4  # pixels by which the mask of a swap or change is eroded; a removal takes the box around it
    name: ClassVar = "edits"
    inputs: ClassVar = {"masks": None}

    def identity(self, index: int, out: Path) -> Any:
        depth = None if self.depth is None else self.depth.identity()
        return [self.painter.identity(), depth, self.seed, self.erosion]

    def make(self, index: int, *inputs: list[Row]) -> list[Row]:
        return each(self._paint, inputs[0])

    def _paint(self, row: Row) -> Row:
        seed = int(digest(self.seed, row["id"]), 16) % 2**31
        key = digest(row["id"], seed, self.identity(0, self.out))

        def paint() -> np.ndarray:
            video = read_clip(self.out, row["source"])
            if row["kind"] in LOCAL:
                region = region_of(read_clip_mask(self.out, row["mask"]), row["kind"], self.erosion)
                control = control_of(video, region)
            elif self.depth is None:
                raise UserError("a change of style needs edits.depth; set it, or leave style out of proposals.kinds")
            else:
                control = self.depth.depth(video)[..., None].repeat(3, axis=3)
                region = np.full(video.shape[:3], 255, np.uint8)
            return self.painter.paint(control, region, row["edited_prompt"], seed)

        return row | {"id": key, "seed": seed, "target": written(self.out, "target", key, paint)}


@dataclass(frozen=True)
class Verdicts(Stage):
    """A judge looks at three frames of both clips.

    Raises:
        UserError: ``accept`` is not in [0, 10].
    """

    out: Path
    judge: Judge
    accept: float = 6.0  # least score on each criterion
    name: ClassVar = "verdicts"
    inputs: ClassVar = {"edits": None}

    def __post_init__(self) -> None:
        if not 0 <= self.accept <= 10:
            raise UserError(f"verdicts.accept is {self.accept}; it must be in [0, 10]")

    def identity(self, index: int, out: Path) -> Any:
        return [self.judge.identity(), self.accept]

    def estimate(self, rows: int) -> str:
        return self.judge.estimate(rows)

    def make(self, index: int, *inputs: list[Row]) -> list[Row]:
        return each(self._judge, inputs[0])

    def _judge(self, row: Row) -> Row:
        shown = strip(read_clip(self.out, row["source"])), strip(read_clip(self.out, row["target"]))
        judgement = self.judge.judge([row], [shown])[0]
        if judgement.failure:
            return rejected(row, judgement.failure)
        row = row | {"scores": json.dumps(judgement.scores), "comment": judgement.comment}
        low = [f"{name} {score:g}" for name, score in judgement.scores.items() if score < self.accept]
        return rejected(row, f"judge: {', '.join(low)}") if low else row
