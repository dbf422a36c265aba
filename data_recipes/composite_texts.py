"""The texts of composed pairs, by a vision-language model that sees both clips."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from data_recipes.clip_rows import read_clip, strip
from data_recipes.clip_sources import each
from data_recipes.models import Model, rejection
from data_recipes.rows import Row, digest, rejected
from data_recipes.stages import Stage
from imvideoedit.clients.answers import ContentPart, Unanswered
from imvideoedit.editing.prompts import shrunk

SIDE = 1024  # pixels of the longer side that the model sees, at most
ANSWER_TOKENS = 220  # about
SYSTEM = """\
You write the texts of a pair of video clips for a data set of edits. You see first, middle and last frame side by side,
of the clip before and of the clip after the edit. Describe what is there; invent nothing. Texts are plain English, and
descriptions speak of the clip, not of frames or of the edit."""
ASKED = {
    "delete": "Who or what stands in front was removed.",
    "add": "Who or what stands in front was added.",
    "background": "The background was replaced; who or what stands in front stays.",
}


class Texts(BaseModel):
    """The texts of one pair."""

    instruction: str = Field(description="the edit in the imperative, as a user would ask for it, at most 25 words")
    source_prompt: str = Field(description="the clip before, 20 to 80 words")
    edited_prompt: str = Field(description="the clip after, 20 to 80 words")


@dataclass(frozen=True)
class CompositeTexts(Stage):
    """Instruction and descriptions of each composed pair, which is a pair of the stage ``edits`` then."""

    out: Path
    model: Model
    name: ClassVar = "edits"
    inputs: ClassVar = {"composites": None}

    @property
    def models(self) -> dict[str, str]:
        """Names of the models, by their part."""
        return {"texts": self.model.name}

    def identity(self, index: int, out: Path) -> Any:
        return [self.model.identity(), digest(SYSTEM, ASKED, Texts.model_json_schema())]

    def estimate(self, rows: int) -> str:
        return self.model.estimate(rows, len(SYSTEM) + 400, 2, ANSWER_TOKENS)

    def make(self, index: int, *inputs: list[Row]) -> list[Row]:
        return each(self._texts, inputs[0], self.model.parallel)

    def _texts(self, row: Row) -> Row:
        clips = [strip(read_clip(self.out, row[side])) for side in ("source", "target")]
        source, target = shrunk(clips, SIDE)
        parts: list[ContentPart] = ["Before:", source, "After:", target, ASKED[row["kind"]]]
        try:
            found = self.model.ask(parts, Texts, SYSTEM)
        except Unanswered as error:
            return rejected(row, rejection(error, "writer"))
        texts = {name: " ".join(value.split()) for name, value in found.model_dump().items()}
        return row | texts | {"id": digest(row["id"], texts)}
