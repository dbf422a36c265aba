"""The models that a recipe asks: their answers, their cost, several questions at once."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from imvideoedit.clients.answers import ContentPart, Refused, Unanswered
from imvideoedit.clients.endpoint import Endpoint
from imvideoedit.clients.settings import EndpointSettings
from imvideoedit.common.errors import UserError

Answer = TypeVar("Answer", bound=BaseModel)
Item = TypeVar("Item")
Result = TypeVar("Result")

CHARACTERS_PER_TOKEN = 4  # of English, about
IMAGE_TOKENS = 1_500  # of one image at 480x832, about


class Model(ABC):
    """Answers questions with text and images.

    Attributes:
        name: for the data set's card.
        parallel: questions at the same time.
    """

    name: str
    parallel: int = 1

    @abstractmethod
    def identity(self) -> Any:
        """Everything that decides its answers, as JSON."""

    @abstractmethod
    def ask(self, parts: Sequence[ContentPart], schema: type[Answer], system: str = "") -> Answer:
        """As ``Endpoint.ask``."""

    def estimate(self, questions: int, characters: int, images: int, answer_tokens: int) -> str:
        """The cost of so many questions of that size, in words."""
        return f"about {questions:,} questions to {self.name}, on this machine"


class EndpointModel(Model):
    """A model behind an OpenAI-compatible endpoint.

    Args:
        cache: folder of the answers and of the money spent.
        parallel: questions at the same time.
        shared: fields of ``EndpointSettings`` that a recipe's models have in common.
        own: further ones, which override the shared ones.

    Raises:
        UserError: an unknown setting, or a value out of its range.
    """

    def __init__(
        self, cache: str, parallel: int = 8, shared: dict[str, Any] | None = None, own: dict[str, Any] | None = None
    ) -> None:
        try:
            self._settings = EndpointSettings(cache=Path(cache), **(shared or {}) | (own or {}))
        except TypeError as error:
            raise UserError(f"the settings of an endpoint are wrong: {error}") from error
        if parallel < 1:
            raise UserError(f"parallel is {parallel}; it must be at least 1")
        self.name, self.parallel = self._settings.model, parallel
        self._endpoint: Endpoint | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_endpoint": None}  # another process makes its own

    def identity(self) -> Any:
        """The model and its sampling; not where it is, nor what it costs."""
        return [self._settings.model, self._settings.temperature, self._settings.max_tokens]

    def ask(self, parts: Sequence[ContentPart], schema: type[Answer], system: str = "") -> Answer:
        self._endpoint = self._endpoint or Endpoint(self._settings)
        return self._endpoint.ask(parts, schema, system)

    def estimate(self, questions: int, characters: int, images: int, answer_tokens: int) -> str:
        settings = self._settings
        tokens = characters / CHARACTERS_PER_TOKEN + images * IMAGE_TOKENS
        cost = questions * settings.cost(math.ceil(tokens), answer_tokens)
        asked = f"about {questions:,} questions to {self.name}"
        if not settings.input_price and not settings.output_price:
            return f"{asked}; their cost is unknown without prices"
        if settings.max_cost is None:
            return f"{asked}, about {cost:,.2f} (no limit)"
        stops = ": it will stop there, and resume with more" if cost > settings.max_cost else ""
        return f"{asked}, about {cost:,.2f} (limit {settings.max_cost:,.2f} in all{stops})"


def rejection(error: Unanswered, who: str) -> str:
    """The reason to reject a row whose question got no answer."""
    return f"{who} {'refused' if isinstance(error, Refused) else 'gave no answer'}: {error}"


def parallel_map(function: Callable[[Item], Result], items: Sequence[Item], parallel: int) -> list[Result]:
    """The results for all items in order, ``parallel`` at the same time in threads; the first error ends it."""
    if parallel == 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(parallel) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
