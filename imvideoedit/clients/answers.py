"""Questions, and their answers: what a model's text holds, and what is kept of it on disk."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from imvideoedit.common.files import replacing

Part = str | bytes | np.ndarray
"""A piece of a question: text, an image file's bytes, or pixels as uint8 ``[H, W, 3]``."""


class Unanswered(Exception):
    """This question got no usable answer; others may."""


class Refused(Unanswered):
    """The model declined to answer; it will do so again."""


@dataclass(frozen=True)
class Question:
    """What to ask, and the schema that the answer must fit."""

    parts: Sequence[Part]
    schema: type[BaseModel]
    system: str = ""

    @property
    def instructions(self) -> str:
        """The system text with the schema, for endpoints and models that know no other way to get one."""
        schema = json.dumps(self.schema.model_json_schema())
        return f"{self.system}\n\nAnswer with one JSON object of this schema and nothing else:\n{schema}".strip()

    def key(self, model: str, temperature: float) -> str:
        """64 hex digits that name this question to that model; pixels count, not the file they are sent as."""
        facts = [model, temperature, self.instructions, [_fingerprint(part) for part in self.parts]]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _fingerprint(part: Part) -> list[Any]:
    if isinstance(part, str):
        return ["text", part]
    if isinstance(part, bytes):
        return ["file", hashlib.sha256(part).hexdigest()]
    return ["pixels", part.shape, hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest()]


def fitting_json(text: str, schema: type[BaseModel]) -> str:
    """The first JSON object in a text that fits a schema, as JSON, whatever stands around it.

    Raises:
        Unanswered: there is none.
    """
    problem = "it holds no whole JSON object"
    for candidate in json_objects(text):
        try:
            schema.model_validate_json(candidate)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            problem = f"{'.'.join(map(str, first['loc'])) or 'object'}: {first['msg']}"
        else:
            return candidate
    raise Unanswered(f"the answer does not fit {schema.__name__} ({problem})")


def json_objects(text: str) -> Iterator[str]:
    """Every whole JSON object in a text by its start, outer ones before those within."""
    decoder = json.JSONDecoder()
    start = text.find("{")
    while start >= 0:
        try:
            _, end = decoder.raw_decode(text, start)
            yield text[start:end]
        except (ValueError, RecursionError):  # no JSON, or nested deeper than any answer
            pass
        start = text.find("{", start + 1)


class AnswerCache:
    """Answers and refusals on disk, one small JSON file each, whole or absent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, key: str, schema: type[BaseModel]) -> str | None:
        """The answer kept under a key, as JSON that fits the schema; None if there is none, or a damaged one.

        Raises:
            Refused: the model declined to answer.
        """
        try:
            kept = json.loads(self._path(key).read_text())
            if "refusal" in kept:
                raise Refused(kept["refusal"])
            schema.model_validate_json(kept["answer"])
            return kept["answer"]
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None

    def write(self, key: str, answer: str) -> None:
        """Keep an answer's JSON."""
        self._write(key, {"answer": answer})

    def write_refusal(self, key: str, refusal: str) -> None:
        """Keep what the model said instead of an answer."""
        self._write(key, {"refusal": refusal})

    def _write(self, key: str, entry: dict[str, str]) -> None:
        with replacing(self._path(key)) as path:
            path.write_text(json.dumps(entry))

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"
