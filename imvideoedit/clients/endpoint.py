"""Questions with images to any OpenAI-compatible chat endpoint, answered as pydantic models."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import tenacity
from pydantic import BaseModel

from imvideoedit.clients.answers import AnswerCache, ContentPart, Question, Refused, Unanswered, fitting_json
from imvideoedit.clients.budget import Budget
from imvideoedit.clients.connection import Connection, Failure, Reply
from imvideoedit.clients.rate_limit import RateLimit
from imvideoedit.clients.settings import EndpointSettings

Answer = TypeVar("Answer", bound=BaseModel)


class Endpoint:
    """A chat endpoint. Several threads may ask at once; the same question asked twice at once is sent once.

    Usage::

        endpoint = Endpoint()  # as the environment says; see EndpointSettings
        verdict = endpoint.ask(["How well does the second follow the first?", first_HWC, second_HWC], Verdict)

    Answers and refusals are cached under a hash of model, messages, schema and temperature, so no process asks the
    same again. Rate limits, server errors, timeouts, broken connections and answers that are cut off or do not fit
    the schema are retried, with exponential backoff and jitter and not before Retry-After. The key is read from the
    environment at the first question that is sent, and appears nowhere.

    Args:
        settings: as the environment says if None.
        sleep: waits, in seconds.
    """

    def __init__(self, settings: EndpointSettings | None = None, sleep: Callable[[float], None] = time.sleep) -> None:
        self.settings = settings or EndpointSettings()
        self.budget = Budget(self.settings.max_cost, self.settings.cache / "spent.json")
        self._cache = AnswerCache(self.settings.cache)
        self._sleep = sleep
        self._rate_limit = RateLimit(self.settings.per_minute, sleep)
        self._random = random.Random()  # its own, so that it does not advance the global one
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._pending: dict[str, Future[str]] = {}

    def ask(self, parts: Sequence[ContentPart], schema: type[Answer], system: str = "") -> Answer:
        """Ask one question.

        Args:
            parts: of the message, in order: text, image files' bytes, or uint8 pixels ``[H, W, 3]``.
            schema: what the answer must fit; the model reads its docstring and descriptions.
            system: standing instructions.

        Raises:
            UserError: no key or a wrong one, endpoint out of reach, unknown model, budget spent: no question will be
                answered before that is fixed.
            Refused: the model declined to answer.
            Unanswered: this question got no usable answer in the given tries; others may.
        """
        question = Question(parts, schema, system)
        key = question.key(self.settings.model, self.settings.temperature)
        with self._lock:
            pending = self._pending.get(key)
            answer = pending or self._pending.setdefault(key, Future())
        if pending is None:
            try:
                answer.set_result(self._cache.read(key, schema) or self._fetch(question, key))
            except BaseException as error:
                answer.set_exception(error)
            finally:
                with self._lock:
                    del self._pending[key]
        return schema.model_validate_json(answer.result())

    def _fetch(self, question: Question, key: str) -> str:
        """The answer's JSON."""
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_result(self._may_pass),
            stop=tenacity.stop_after_attempt(self.settings.tries),
            wait=self._wait,
            sleep=self._sleep,
            retry_error_callback=_last_outcome,
        )
        outcome = attempts(self._attempt, question, key)
        if isinstance(outcome, Failure):
            raise outcome.error
        self._cache.write(key, outcome)
        return outcome

    def _attempt(self, question: Question, key: str) -> str | Failure:
        connection, bound = self._connected(), self._bound(question)
        self._rate_limit.wait()
        self.budget.reserve(bound)
        cost = bound  # also when the call is interrupted: it may be charged
        try:
            outcome = connection.post(question)
            cost = self._cost(outcome, bound)
        finally:
            self.budget.settle(bound, cost)
        if isinstance(outcome, Failure):
            return outcome
        if outcome.refusal is not None:
            self._cache.write_refusal(key, outcome.refusal)
            return Failure(Refused(outcome.refusal), retry=False)
        if outcome.cut_off:
            return Failure(Unanswered(f"the answer is longer than {self.settings.max_tokens} tokens"), retry=True)
        try:
            return fitting_json(outcome.text, question.schema)
        except Unanswered as error:
            return Failure(error, retry=True)

    def _connected(self) -> Connection:
        with self._lock:
            self._connection = self._connection or Connection(self.settings)
            return self._connection

    def _bound(self, question: Question) -> float:
        """The most that one attempt may cost: a token has at least one byte, and the schema is sent twice."""
        texts = [part for part in question.parts if isinstance(part, str)]
        characters = 2 * len(question.instructions.encode()) + sum(len(text.encode()) for text in texts)
        marks = 16 * (len(question.parts) + 4)  # tokens where messages and parts begin and end
        images = self.settings.image_tokens * (len(question.parts) - len(texts))
        return self.settings.cost(characters + marks + images, self.settings.max_tokens)

    def _cost(self, outcome: Reply | Failure, bound: float) -> float:
        if isinstance(outcome, Failure):
            return bound if outcome.charged else 0.0
        return self.settings.cost(*outcome.tokens) if outcome.tokens else bound

    def _may_pass(self, outcome: str | Failure) -> bool:
        """Whether to retry; not if the endpoint asks to wait too long (or for NaN seconds)."""
        return isinstance(outcome, Failure) and outcome.retry and outcome.retry_after <= self.settings.longest_wait

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """Seconds until the next attempt, never fewer than the endpoint asks for."""
        backoff = tenacity.wait_exponential(self.settings.backoff, self.settings.longest_wait)(state)
        return _last_outcome(state).retry_after + backoff * self._random.uniform(0.5, 1)


def _last_outcome(state: tenacity.RetryCallState) -> Any:
    assert state.outcome is not None
    return state.outcome.result()
