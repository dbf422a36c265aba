"""A vision-language model of transformers as a recipe's model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_recipes.models import Answer
from imvideoedit.clients.answers import Part
from imvideoedit.clients.local import LocalModel
from imvideoedit.common.errors import UserError


@dataclass
class LocalVision:
    """A vision-language model of transformers in this process.

    Args:
        folder: of the model, or its id on the hub.
        cache: folder of the answers.
        device: the GPU if there is one, else the CPU.
        max_tokens: of an answer.
    """

    folder: str
    cache: str
    device: str | None = None
    max_tokens: int = 600
    parallel: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        self._model: LocalModel | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_model": None}

    @property
    def name(self) -> str:
        """The folder's own name."""
        return Path(self.folder).name

    def identity(self) -> Any:
        """The model."""
        return [self.folder, self.max_tokens]

    def ask(self, parts: Sequence[Part], schema: type[Answer], system: str = "") -> Answer:
        """As ``Endpoint.ask``.

        Raises:
            UserError: the model cannot be loaded.
        """
        self._model = self._model or LocalModel(self.folder, Path(self.cache), self.device, self.max_tokens)
        try:
            return self._model.ask(parts, schema, system)
        except (OSError, ValueError) as error:
            raise UserError(f"the model in {self.folder} cannot be used ({error}); check it") from error

    def estimate(self, questions: int, characters: int, images: int, answer_tokens: int) -> str:
        """Nothing is paid."""
        return f"about {questions:,} questions to {self.name}, on this machine"
