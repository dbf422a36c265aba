"""What is asked of a vision-language model for an edit of a clip: an object or a style, and the texts.

Shapes: H W pixels.
"""

import numpy as np
from pydantic import BaseModel, Field

from data_recipes.clip_rows import LOCAL
from data_recipes.models import Model
from data_recipes.rows import digest
from imvideoedit.clients.answers import ContentPart
from imvideoedit.editing.prompts import shrunk

SIDE = 1536  # pixels of the longer side that the model sees, at most
SYSTEM = """\
You plan one edit of a video clip for a data set. You see its first, middle and last frame side by side. Describe what
is there; invent nothing. Texts are plain English, and descriptions speak of the clip, not of frames or of the edit."""
WISHES = {
    "swap": "Choose one clear, whole object that stays in view, and another one of about its size to replace it with.",
    "modify": "Choose one clear, whole object that stays in view, and change its colour, material or some attribute.",
    "remove": "Choose one clear, whole object that stays in view and could be missing, and remove it. The edited "
    "description names what is behind it, and not the object.",
    "style": "Choose a visual style for the whole clip, such as watercolour, claymation, pencil or pixel art.",
}


ANSWER_TOKENS = 220  # about
CHARACTERS = len(SYSTEM) + 600  # of a question, about


class Proposal(BaseModel):
    """An edit of one clip."""

    object: str = Field(description="the object that is edited, in two to five words; for a style, the style")
    instruction: str = Field(description="the edit in the imperative, at most 20 words")
    source_prompt: str = Field(description="the clip as it is, 20 to 80 words")
    edited_prompt: str = Field(description="the clip after the edit, 20 to 80 words")


def propose(model: Model, shown_HWC: np.ndarray, kind: str) -> dict[str, str]:
    """Object and texts of an edit.

    Args:
        shown_HWC: three frames of the clip side by side.
        kind: of ``KINDS``.

    Raises:
        Unanswered: there is no answer.
    """
    parts: list[ContentPart] = [*shrunk([shown_HWC], SIDE), WISHES[kind]]
    found = model.ask(parts, Proposal, SYSTEM)
    texts = {name: " ".join(value.split()) for name, value in found.model_dump().items()}
    return texts if kind in LOCAL else texts | {"object": ""}


def identity() -> str:
    """Everything that decides the texts besides clip and model."""
    return digest(SYSTEM, WISHES, Proposal.model_json_schema())
