"""The language and vision-language models that a recipe asks: what to ask, how many at a time, at what cost.

Heavy parts are made at the first question, so that a model's description can be sent to other processes.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from imvideoedit.clients.answers import Part, Refused, Unanswered
from imvideoedit.clients.endpoint import Endpoint
from imvideoedit.clients.settings import EndpointSettings
from imvideoedit.common.errors import UserError

Answer = TypeVar("Answer", bound=BaseModel)
Item = TypeVar("Item")
Result = TypeVar("Result")

CHARACTERS_PER_TOKEN = 4  # of English, about
IMAGE_TOKENS = 1_500  # of one picture at 480x832, about


class Model(Protocol):
    """Something that answers questions with text and pictures."""

    @property
    def name(self) -> str:
        """As a data set's card calls it."""

    @property
    def parallel(self) -> int:
        """Questions at a time."""

    def identity(self) -> Any:
        """All that decides its answers, as JSON."""

    def ask(self, parts: Sequence[Part], schema: type[Answer], system: str = "") -> Answer:
        """As ``Endpoint.ask``."""

    def estimate(self, questions: int, characters: int, images: int, answer_tokens: int) -> str:
        """What so many questions of that size will cost, in words; empty where nothing is paid."""


@dataclass
class EndpointModel:
    """A model behind an OpenAI-compatible endpoint; see ``EndpointSettings`` for what can be set.

    Args:
        cache: folder of the answers and of what was spent.
        parallel: questions at a time.
        shared: settings of ``EndpointSettings`` that a recipe's models have in common.
        own: further ones, which come first.

    Raises:
        UserError: an unknown setting, or a value out of its range.
    """

    cache: str
    parallel: int = 8
    shared: dict[str, Any] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            self._settings = EndpointSettings(cache=Path(self.cache), **self.shared | self.own)
        except TypeError as error:
            raise UserError(f"the settings of an endpoint are not as they should be: {error}") from error
        if self.parallel < 1:
            raise UserError(f"parallel is {self.parallel}; at least one question at a time must be asked")
        self._endpoint: Endpoint | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_endpoint": None}

    @property
    def name(self) -> str:
        """The model, as its endpoint calls it."""
        return self._settings.model

    def identity(self) -> Any:
        """The model and what it is asked with; not where it is, nor what it costs."""
        return [self._settings.model, self._settings.temperature, self._settings.max_tokens]

    def ask(self, parts: Sequence[Part], schema: type[Answer], system: str = "") -> Answer:
        """As ``Endpoint.ask``."""
        self._endpoint = self._endpoint or Endpoint(self._settings)
        return self._endpoint.ask(parts, schema, system)

    def estimate(self, questions: int, characters: int, images: int, answer_tokens: int) -> str:
        """Questions and money, beside what may be spent."""
        settings = self._settings
        tokens = characters / CHARACTERS_PER_TOKEN + images * IMAGE_TOKENS
        cost = questions * settings.cost(math.ceil(tokens), answer_tokens)
        asked = f"about {questions:,} questions to {self.name}"
        if not settings.input_price and not settings.output_price:
            return f"{asked}; no prices are set, so their cost is unknown"
        limit = "no limit" if settings.max_cost is None else f"limit {settings.max_cost:,.2f} in all"
        short = settings.max_cost is not None and cost > settings.max_cost
        return f"{asked}, about {cost:,.2f} ({limit}{': it will stop there, and go on with more' if short else ''})"


def unanswered(error: Unanswered, who: str) -> str:
    """The reason to reject a row whose question got no answer."""
    return f"{who} {'refused' if isinstance(error, Refused) else 'gave no answer'}: {error}"


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item], parallel: int) -> list[Result]:
    """``work`` of every item, in order, ``parallel`` at a time in threads; the first error ends it all."""
    if parallel == 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(parallel) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
