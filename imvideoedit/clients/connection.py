"""One try at one question over HTTP: how it is put, and what each way of failing means."""

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

from imvideoedit.clients.answers import Part, Question, Unanswered
from imvideoedit.clients.settings import EndpointSettings
from imvideoedit.common.errors import UserError

CONNECT_TIMEOUT = 10.0  # seconds; an answer may take long, a connection does not
SECRET_LENGTH = 8  # a shorter key is a placeholder for a server that asks for none, and may be part of any word
MESSAGE_LENGTH = 300  # characters of an endpoint's own words in an error


@dataclass(frozen=True)
class Reply:
    """A chat completion: its text, or a refusal; the tokens are None where the endpoint does not count them."""

    text: str
    refusal: str | None
    cut_off: bool
    tokens: tuple[int, int] | None


@dataclass(frozen=True)
class Setback:
    """Why a try brought no answer.

    Attributes:
        error: to raise if no other try is made.
        again: whether another try may help.
        charged: whether the endpoint may have charged for it.
        wait: seconds that the endpoint asks to wait.
    """

    error: Exception
    again: bool
    charged: bool = False
    wait: float | None = None


@dataclass(frozen=True)
class Dialect:
    """What of the protocol an endpoint understands; each model and server leaves something out."""

    response_format: str = "json_schema"
    limit: str = "max_tokens"
    temperature: bool = True

    def without(self, error: openai.OpenAIError) -> "Dialect | None":
        """The dialect that avoids what an endpoint objects to; None if this is not about the dialect."""
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
        UserError: the environment holds no key, or something that is none.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        self._settings, self._dialect = settings, Dialect()
        self._key = _read_key(settings)
        self._client: Any = openai.OpenAI(
            api_key=self._key,
            base_url=settings.url,
            max_retries=0,
            timeout=openai.Timeout(settings.timeout, connect=min(CONNECT_TIMEOUT, settings.timeout)),
        )

    def post(self, question: Question) -> Reply | Setback:
        """Send a question, again only where the endpoint objects to how it is put."""
        dialect = self._dialect
        while True:
            try:
                # Raw, because the library believes whatever it is sent.
                sent = self._client.chat.completions.with_raw_response.create(**self._request(question, dialect))
            except openai.OpenAIError as error:
                simpler = dialect.without(error)
                if simpler is None:
                    return self._setback(error)
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

    def _reply(self, body: bytes) -> Reply | Setback:
        try:
            completion = _Completion.model_validate_json(body)
        except ValidationError:
            words = self._clean(body.decode(errors="replace"))
            error = Unanswered(f"{self._settings.url} did not send a chat completion but {words!r}")
            return Setback(error, again=True, charged=True)
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

    def _setback(self, error: openai.OpenAIError) -> Setback:
        url, settings = self._settings.url, self._settings
        if isinstance(error, openai.APIStatusError):
            return self._status_setback(error)
        # The library's own error says only that there was one; its cause is of its HTTP library, which has changed.
        cause = type(error.__cause__).__name__
        if cause in ("ConnectError", "ConnectTimeout"):
            reason = self._clean(str(error.__cause__)) or "no answer"
            text = f"cannot reach the endpoint {url} ({reason}); check the network and IMVIDEOEDIT_ENDPOINT"
            return Setback(UserError(text), again=True)
        if isinstance(error, openai.APITimeoutError):
            text = f"the endpoint {url} did not answer within {settings.timeout:g} s"
            return Setback(Unanswered(text), again=True, charged=True)
        text = f"the connection to {url} broke off ({cause}: {self._clean(str(error.__cause__))})"
        return Setback(Unanswered(text), again=True, charged=True)

    def _status_setback(self, error: openai.APIStatusError) -> Setback:
        url, model, variable = self._settings.url, self._settings.model, self._settings.key_variable
        status, words = error.status_code, self._clean(error.message)
        if status in (401, 403):
            return Setback(UserError(f"{url} does not accept the key in {variable} ({words}); mend it"), again=False)
        if status == 404:
            text = f"{url} knows no model {model!r} ({words}); check IMVIDEOEDIT_MODEL, and IMVIDEOEDIT_ENDPOINT too"
            return Setback(UserError(text), again=False)
        if status == 402 or error.code == "insufficient_quota":
            return Setback(UserError(f"the account at {url} has nothing left ({words}); top it up"), again=False)
        again = status in (408, 409, 425, 429) or status >= 500
        wait = _retry_after(error.response.headers.get("retry-after"))
        return Setback(Unanswered(f"{url} answered with status {status} ({words})"), again, wait=wait)

    def _hide(self, text: str) -> str:
        """The text without the key, which some endpoints repeat."""
        return text.replace(self._key, "***") if len(self._key) >= SECRET_LENGTH else text

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
            f"there is no key for {settings.url}; set {name} to yours, or to any word for a server that asks for none"
        )
    if not all(33 <= ord(character) <= 126 for character in key):
        # The HTTP library would refuse it too, and show it.
        raise UserError(f"what {name} holds is no key: it has spaces or other than ASCII characters; copy it anew")
    return key


def _retry_after(header: str | None) -> float | None:
    """The seconds that a Retry-After header asks for, as a number or a date."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return None
    return max(seconds, 0.0)


def _content(part: Part) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    data = part if isinstance(part, bytes) else jpeg(part)
    with Image.open(io.BytesIO(data)) as image:
        media = Image.MIME[image.format or ""]
    return {"type": "image_url", "image_url": {"url": f"data:{media};base64,{base64.b64encode(data).decode()}"}}


def jpeg(pixels_HWC: np.ndarray) -> bytes:
    """An image file of uint8 RGB pixels, without loss that shows."""
    if pixels_HWC.dtype != np.uint8 or pixels_HWC.ndim != 3 or pixels_HWC.shape[2] != 3 or not pixels_HWC.size:
        raise ValueError(f"need uint8 pixels [H, W, 3]; got {pixels_HWC.dtype} {list(pixels_HWC.shape)}")
    file = io.BytesIO()
    Image.fromarray(pixels_HWC).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()
