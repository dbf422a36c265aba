"""The texts of a fit: given, or written by a vision-language model behind the configured endpoint."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from imvideoedit.common.errors import UserError
from imvideoedit.editing.prompts import shrunk
from imvideoedit.fitting.request import FIRST, FitRequest

ENDPOINT = "IMVIDEOEDIT_ENDPOINT"
QUESTION = (
    "Describe this picture in one paragraph of 40 to 80 words in English, in the present tense: the subjects with "
    "their number, colours, materials and places, what they do, the setting, the light, the view and the visual style. "
    "Say only what it shows, and do not speak of the picture itself."
)


@dataclass(frozen=True)
class Texts:
    """Descriptions of the clip as it is, empty where there is none, and of each edited frame by its number."""

    source: str
    edited: Mapping[int, str]

    def of(self, frame: int, edited: bool) -> str:
        """Of the clip, or of an edited frame."""
        return self.edited[frame] if edited else self.source

    @property
    def edit(self) -> str:
        """Of the edited clip."""
        return self.edited[FIRST]


def check_texts(request: FitRequest) -> None:
    """See that there is a description of the edit, or who writes one.

    Raises:
        UserError: there is neither.
    """
    if not request.prompt and not os.environ.get(ENDPOINT):
        raise UserError(
            "there is no prompt; give --prompt with a full description after the edit, or set "
            f"{ENDPOINT} to have a model describe the edited frames"
        )


def make_texts(request: FitRequest, first_HWC: np.ndarray, edited: Mapping[int, np.ndarray]) -> Texts:
    """The texts of a fit.

    Args:
        first_HWC: of the clip, uint8.
        edited: frames by their numbers, uint8.

    Raises:
        UserError: a text is to be written, and the endpoint does not answer.
    """
    check_texts(request)
    asks = bool(os.environ.get(ENDPOINT))
    source = request.source_prompt or (_described(first_HWC) if asks else "")
    return Texts(source, {number: request.prompt or _described(frame) for number, frame in edited.items()})


def _described(frame_HWC: np.ndarray) -> str:
    try:
        from pydantic import BaseModel

        from imvideoedit.clients.endpoint import Endpoint
        from imvideoedit.clients.prompts import Description
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed, so nobody describes the frames; pip install 'imvideoedit[models]', or "
            "give --prompt and --source-prompt"
        ) from error

    class Caption(BaseModel):
        """What a picture shows."""

        description: Description

    parts: list[Any] = [*shrunk([frame_HWC]), QUESTION]
    try:
        return Endpoint().ask(parts, Caption).description
    except UserError:
        raise
    except Exception as error:  # refusals, and answers that fit nothing
        fix = "give --prompt and --source-prompt"
        raise UserError(f"the model of {ENDPOINT} describes no frame ({error}); {fix}") from error
