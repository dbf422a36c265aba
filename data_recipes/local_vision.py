"""A vision-language model of transformers as a recipe's model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_recipes.models import Answer, Model
from imvideoedit.clients.answers import ContentPart
from imvideoedit.clients.local import LocalModel
from imvideoedit.common.errors import UserError


class LocalVision(Model):
    """A vision-language model of transformers in this process.

    Args:
        folder: of the model, or its id on the hub.
        cache: folder of the answers.
        device: the GPU if there is one, else the CPU.
        max_tokens: of an answer.
    """

    def __init__(self, folder: str, cache: str, device: str | None = None, max_tokens: int = 600) -> None:
        self._folder, self._max_tokens, self.name = folder, max_tokens, Path(folder).name
        self._model = LocalModel(folder, Path(cache), device, max_tokens)

    def identity(self) -> Any:
        return [self._folder, self._max_tokens]

    def ask(self, parts: Sequence[ContentPart], schema: type[Answer], system: str = "") -> Answer:
        """As ``Endpoint.ask``.

        Raises:
            UserError: the model cannot be loaded.
        """
        try:
            return self._model.ask(parts, schema, system)
        except (OSError, ValueError) as error:
            raise UserError(f"the model in {self._folder} cannot be used ({error}); check it") from error
