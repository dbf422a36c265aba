"""Questions with pictures to any OpenAI-compatible chat endpoint, answered as pydantic models.

Prompt expansion asks a handful of questions and a data recipe hundred thousands, so an answer that was paid for is
kept, trouble that passes is waited out, and money is never overspent.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from pydantic import BaseModel

from imvideoedit.clients.answers import AnswerCache, Part, Question, Refused, Unanswered, fitting_json
from imvideoedit.clients.budget import Budget
from imvideoedit.clients.connection import Connection, Reply, Setback
from imvideoedit.clients.pace import Pace
from imvideoedit.clients.settings import EndpointSettings

Model = TypeVar("Model", bound=BaseModel)


class Endpoint:
    """A chat endpoint. Several threads may ask at once; what two ask at the same time is sent once.

    Usage::

        endpoint = Endpoint()  # as the environment says; see EndpointSettings
        verdict = endpoint.ask(["How well does the second follow the first?", first_HWC, second_HWC], Verdict)

    Answers and refusals are kept in the cache folder under a hash of model, messages, schema and temperature, so no
    process ever asks the same again. Rate limits (with their Retry-After), errors of the server, timeouts, broken
    connections and answers that are cut off or do not fit the schema are tried again, after waits that double, with
    jitter. The key is read from the environment at the first question that is sent, and appears nowhere.

    Args:
        settings: as the environment says if None.
        sleep: how to wait, in seconds.
    """

    def __init__(self, settings: EndpointSettings | None = None, sleep: Callable[[float], None] = time.sleep) -> None:
        self.settings = settings or EndpointSettings()
        self.budget = Budget(self.settings.max_cost, self.settings.cache / "spent.json")
        self._cache = AnswerCache(self.settings.cache / "answers")
        self._sleep = sleep
        self._pace = Pace(self.settings.per_minute, sleep)
        self._random = random.Random()  # its own: seeds set elsewhere stay as they are
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._under_way: dict[str, Future[str]] = {}

    def ask(self, parts: Sequence[Part], schema: type[Model], system: str = "") -> Model:
        """Ask one question.

        Args:
            parts: of the question, in order: text, image files' bytes, or uint8 pixels ``[H, W, 3]``.
            schema: what the answer must fit; its docstring and descriptions are read by the model.
            system: standing instructions.

        Raises:
            UserError: no key or a wrong one, endpoint out of reach, unknown model, budget spent: no question will be
                answered before that is mended.
            Refused: the model declined to answer.
            Unanswered: this question got no usable answer in the given tries; others may.
        """
        question = Question(parts, schema, system)
        key = question.key(self.settings.model, self.settings.temperature)
        with self._lock:
            under_way = self._under_way.get(key)
            answer = under_way or self._under_way.setdefault(key, Future())
        if under_way is None:
            try:
                answer.set_result(self._cache.read(key, schema) or self._fetch(question, key))
            except BaseException as error:
                answer.set_exception(error)
            finally:
                with self._lock:
                    del self._under_way[key]
        return schema.model_validate_json(answer.result())

    def _fetch(self, question: Question, key: str) -> str:
        """The answer's JSON, by as many tries as it takes and is allowed."""
        attempt = 0
        while True:
            attempt += 1
            outcome = self._attempt(question, key)
            if isinstance(outcome, str):
                self._cache.write(key, outcome)
                return outcome
            wait = self._wait(attempt, outcome)
            if wait is None:
                raise outcome.error
            self._sleep(wait)

    def _attempt(self, question: Question, key: str) -> str | Setback:
        connection, bound = self._connected(), self._bound(question)
        self._pace.wait()
        self.budget.reserve(bound)
        cost = bound  # also when the call is interrupted: it may be charged
        try:
            outcome = connection.post(question)
            cost = self._cost(outcome, bound)
        finally:
            self.budget.settle(bound, cost)
        if isinstance(outcome, Setback):
            return outcome
        if outcome.refusal is not None:
            self._cache.write_refusal(key, outcome.refusal)
            return Setback(Refused(outcome.refusal), again=False)
        if outcome.cut_off:
            return Setback(Unanswered(f"the answer is longer than {self.settings.max_tokens} tokens"), again=True)
        try:
            return fitting_json(outcome.text, question.schema)
        except Unanswered as error:
            return Setback(error, again=True)

    def _connected(self) -> Connection:
        with self._lock:
            self._connection = self._connection or Connection(self.settings)
            return self._connection

    def _bound(self, question: Question) -> float:
        """The most that one try may cost: no token is less than a byte, and the schema is sent twice."""
        texts = [part for part in question.parts if isinstance(part, str)]
        characters = 2 * len(question.instructions.encode()) + sum(len(text.encode()) for text in texts)
        frame = 16 * (len(question.parts) + 4)  # tokens that mark where messages and parts begin and end
        images = self.settings.image_tokens * (len(question.parts) - len(texts))
        return self.settings.cost(characters + frame + images, self.settings.max_tokens)

    def _cost(self, outcome: Reply | Setback, bound: float) -> float:
        if isinstance(outcome, Setback):
            return bound if outcome.charged else 0.0
        return self.settings.cost(*outcome.tokens) if outcome.tokens else bound

    def _wait(self, attempt: int, setback: Setback) -> float | None:
        """Seconds until the next try, never fewer than the endpoint asks for; None if there is to be none."""
        asked, longest = setback.wait or 0.0, self.settings.longest_wait
        if not setback.again or attempt == self.settings.tries or not asked <= longest:
            return None
        return asked + min(self.settings.backoff * 2 ** (attempt - 1), longest) * self._random.uniform(0.5, 1)
