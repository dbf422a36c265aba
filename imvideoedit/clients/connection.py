"""One attempt at a question over HTTP: the request, and what each kind of failure means."""

import base64
import email.utils
import io
import os
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import openai
from PIL import Image
from pydantic import BaseModel, Field, ValidationError

from imvideoedit.clients.answers import ContentPart, Question, Unanswered
from imvideoedit.clients.secret import Hidden
from imvideoedit.clients.settings import EndpointSettings
from imvideoedit.common.errors import UserError
from imvideoedit.video.pictures import open_picture

CONNECT_TIMEOUT = 10.0  # seconds; an answer may take long, a connection does not
MESSAGE_LENGTH = 300  # characters of an endpoint's message in an error


@dataclass(frozen=True)
class Reply:
    """A chat completion: its text, or a refusal; the tokens (input, output) are None where they are not counted."""

    text: str
    refusal: str | None
    cut_off: bool
    tokens: tuple[int, int] | None


@dataclass(frozen=True)
class Failure:
    """Why an attempt brought no answer."""

    error: Exception  # raised if there is no further attempt
    retry: bool  # whether a further attempt may help
    charged: bool = False  # whether the endpoint may have charged for this one
    retry_after: float = 0.0  # seconds that the endpoint asks to wait


@dataclass(frozen=True)
class Dialect:
    """The part of the protocol that an endpoint understands; each model and server leaves something out."""

    response_format: str = "json_schema"
    limit: str = "max_tokens"
    temperature: bool = True

    def without(self, error: openai.OpenAIError) -> "Dialect | None":
        """The dialect without what an endpoint objects to; None if the error is about something else."""
        if not isinstance(error, (openai.BadRequestError, openai.UnprocessableEntityError)):
            return None
        complaint = f"{error.param} {error.message}".lower()
        simpler = {"json_schema": "json_object", "json_object": "none"}.get(self.response_format)
        if simpler and any(word in complaint for word in ("response_format", "json_schema", "json_object")):
            return replace(self, response_format=simpler)
        if self.limit == "max_tokens" and "max_tokens" in complaint:
            return replace(self, limit="max_completion_tokens")
        if self.temperature and "temperature" in complaint:
            return replace(self, temperature=False)
        return None


class Connection:
    """Sends questions with the user's key. Safe to use from several threads.

    Raises:
        UserError: the environment holds no valid key.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        self._settings, self._dialect = settings, Dialect()
        key = _read_key(settings)
        self._hide = Hidden(key)
        # The client's own retries would spend money that the budget does not see.
        self._client: Any = openai.OpenAI(
            api_key=key,
            base_url=settings.url,
            max_retries=0,
            timeout=openai.Timeout(settings.timeout, connect=min(CONNECT_TIMEOUT, settings.timeout)),
        )

    def post(self, question: Question) -> Reply | Failure:
        """Send a question, again only in a simpler dialect."""
        dialect = self._dialect
        while True:
            try:
                # Raw, since the client does not validate what it receives.
                sent = self._client.chat.completions.with_raw_response.create(**self._request(question, dialect))
            except openai.OpenAIError as error:
                simpler = dialect.without(error)
                if simpler is None:
                    return self._failure(error)
            else:
                return self._reply(sent.content)
            self._dialect = dialect = simpler

    def _request(self, question: Question, dialect: Dialect) -> dict[str, Any]:
        messages = [
            {"role": "system", "content": question.instructions},
            {"role": "user", "content": [_content(part) for part in question.parts]},
        ]
        request: dict[str, Any] = {"model": self._settings.model, "messages": messages}
        request[dialect.limit] = self._settings.max_tokens
        if dialect.temperature:
            request["temperature"] = self._settings.temperature
        if dialect.response_format == "json_schema":
            strict = openai.pydantic_function_tool(question.schema)["function"]["parameters"]
            named = {"name": question.schema.__name__, "schema": strict, "strict": True}
            request["response_format"] = {"type": "json_schema", "json_schema": named}
        elif dialect.response_format == "json_object":
            request["response_format"] = {"type": "json_object"}
        return request

    def _reply(self, body: bytes) -> Reply | Failure:
        try:
            completion = _Completion.model_validate_json(body)
        except ValidationError:
            words = self._clean(body.decode(errors="replace"))
            error = Unanswered(f"{self._settings.url} did not send a chat completion but {words!r}")
            return Failure(error, retry=True, charged=True)
        choice, usage = completion.choices[0], completion.usage
        refusal = choice.message.refusal or None
        if choice.finish_reason == "content_filter":
            refusal = refusal or "the endpoint's content filter stopped the answer"
        return Reply(
            text=self._hide(choice.message.content or ""),
            refusal=self._clean(refusal) if refusal else None,
            cut_off=choice.finish_reason == "length",
            tokens=(usage.prompt_tokens, usage.completion_tokens) if usage else None,
        )

    def _failure(self, error: openai.OpenAIError) -> Failure:
        url = self._settings.url
        if isinstance(error, openai.APIStatusError):
            return self._status_failure(error)
        # The client's own error carries no reason; its cause is an error of its HTTP library.
        cause, reason = type(error.__cause__).__name__, self._clean(str(error.__cause__)) or "no answer"
        if cause in ("ConnectError", "ConnectTimeout"):
            text = f"cannot reach the endpoint {url} ({reason}); check the network and IMVIDEOEDIT_ENDPOINT"
            return Failure(UserError(text), retry=True)
        if isinstance(error, openai.APITimeoutError):
            text = f"the endpoint {url} did not answer within {self._settings.timeout:g} s"
        else:
            text = f"the connection to {url} broke off ({cause}: {reason})"
        return Failure(Unanswered(text), retry=True, charged=True)

    def _status_failure(self, error: openai.APIStatusError) -> Failure:
        url, model, variable = self._settings.url, self._settings.model, self._settings.key_variable
        status, words = error.status_code, self._clean(error.message)
        if status in (401, 403):
            text = f"{url} does not accept the key in {variable} ({words}); correct it"
        elif status == 404:
            text = f"{url} knows no model {model!r} ({words}); check IMVIDEOEDIT_MODEL, and IMVIDEOEDIT_ENDPOINT too"
        elif status == 402 or error.code == "insufficient_quota":
            text = f"the account at {url} has no credit left ({words}); top it up"
        else:
            retry = status in (408, 409, 425, 429) or status >= 500
            wait = _retry_after(error.response.headers.get("retry-after", ""))
            return Failure(Unanswered(f"{url} answered with status {status} ({words})"), retry, retry_after=wait)
        return Failure(UserError(text), retry=False)

    def _clean(self, text: str) -> str:
        return " ".join(self._hide(text).split())[:MESSAGE_LENGTH]


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def _read_key(settings: EndpointSettings) -> str:
    name = settings.key_variable
    key = os.environ.get(name, "").strip()
    if not key:
        raise UserError(
            f"there is no key for {settings.url}; set {name} to yours, or to any word for a server that needs none"
        )
    if not all(33 <= ord(character) <= 126 for character in key):
        # The HTTP library would refuse it too, and show it.
        raise UserError(f"{name} holds no valid key: it has spaces or non-ASCII characters; copy it again")
    return key


def _retry_after(header: str) -> float:
    """Seconds that a Retry-After header asks for, as a number or a date; 0 without a valid one."""
    try:
        return max(float(header), 0.0)
    except ValueError:
        try:
            return max(email.utils.parsedate_to_datetime(header).timestamp() - time.time(), 0.0)
        except ValueError:
            return 0.0


def _content(part: ContentPart) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, np.ndarray):
        file = io.BytesIO()
        Image.fromarray(part).save(file, "JPEG", quality=95, subsampling=0)
        part = file.getvalue()
    with open_picture(part) as image:
        media = Image.MIME[image.format or ""]
    return {"type": "image_url", "image_url": {"url": f"data:{media};base64,{base64.b64encode(part).decode()}"}}
