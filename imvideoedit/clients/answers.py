"""Questions to a model, the JSON in its answers, and the cache of answers."""

import contextlib
import hashlib
import json
import logging
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from pydantic import BaseModel, ValidationError

from imvideoedit.common.errors import UserError
from imvideoedit.common.json_file import DECODER

ContentPart = str | bytes | np.ndarray
"""ContentPart of a message: text, an image file's bytes, or uint8 pixels ``[H, W, 3]``."""


class Unanswered(Exception):
    """This question got no usable answer; others may."""


class Refused(Unanswered):
    """The model declined to answer, and would again."""


@dataclass(frozen=True)
class Question:
    """The parts of a message, and the schema that the answer must fit."""

    parts: Sequence[ContentPart]
    schema: type[BaseModel]
    system: str = ""

    @property
    def instructions(self) -> str:
        """The system text with the schema, for models without structured output."""
        schema = json.dumps(self.schema.model_json_schema())
        return f"{self.system}\n\nAnswer with one JSON object of this schema and nothing else:\n{schema}".strip()

    def key(self, model: str, temperature: float) -> str:
        """SHA-256, in hex, of model and question; an array counts by its pixels, not by the file it is sent as."""
        facts = [model, temperature, self.instructions, [_fingerprint(part) for part in self.parts]]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _fingerprint(part: ContentPart) -> list[Any]:
    if isinstance(part, str):
        return ["text", part]
    if isinstance(part, bytes):
        return ["file", hashlib.sha256(part).hexdigest()]
    return ["pixels", part.shape, hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest()]


def fitting_json(text: str, schema: type[BaseModel]) -> str:
    """The first JSON object in a text that fits a schema, outer objects before those within.

    Not json-repair: it completes an answer that was cut off, which would then pass for a full one.

    Raises:
        Unanswered: there is none.
    """
    problem = "it holds no complete JSON object"
    for start in re.finditer("{", text):
        try:
            _, end = DECODER.raw_decode(text, start.start())
            schema.model_validate_json(text[start.start() : end])
            return text[start.start() : end]
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            problem = f"{'.'.join(map(str, first['loc'])) or 'object'}: {first['msg']}"
        except (ValueError, RecursionError):  # no JSON, NaN in it, or nested deeper than any answer
            pass
    raise Unanswered(f"the answer does not fit {schema.__name__} ({problem})")


# Before there were checksums, answers were kept in the first one.
_TABLES = ("answers (key PRIMARY KEY, answer, refusal)", "checked (key PRIMARY KEY, answer, refusal, checksum)")


class AnswerCache:
    """Answers and refusals in an SQLite file that several threads and processes may use at once.

    A damaged file is renamed and a new one begun; an entry that is not as it was written is asked for again. Not
    diskcache: it unpickles whatever its file says is a pickle.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "answers.sqlite"

    def read(self, key: str, schema: type[BaseModel]) -> str | None:
        """The JSON stored under a key; None if there is none, or it does not fit the schema.

        Raises:
            Refused: the model declined to answer.
            UserError: the file cannot be opened.
        """
        if not self._path.exists():
            return None
        found = self._execute("SELECT answer, refusal, checksum FROM checked WHERE key = ?", key)
        for answer, refusal, checksum in found:
            if checksum != _checksum(key, answer, refusal):
                logging.getLogger(__name__).warning("%s holds a damaged answer, which is asked for again", self._path)
                return None
        for answer, refusal, *_ in found or self._execute("SELECT answer, refusal FROM answers WHERE key = ?", key):
            if refusal:
                raise Refused(refusal)
            with contextlib.suppress(ValidationError):
                schema.model_validate_json(answer)
                return answer
        return None

    def write(self, key: str, answer: str | None, refusal: str | None = None) -> None:
        """Store an answer's JSON, or the model's refusal."""
        checksum = _checksum(key, answer, refusal)
        self._execute("INSERT OR REPLACE INTO checked VALUES (?, ?, ?, ?)", key, answer, refusal, checksum)

    def _execute(self, statement: str, *values: str | None) -> list[tuple[str, ...]]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # A connection for each statement: it is quick next to a question, and works after a fork and in threads.
            with contextlib.closing(sqlite3.connect(self._path, timeout=60)) as connection, connection:
                connection.text_factory = lambda data: data.decode(errors="replace")
                for table in _TABLES:
                    connection.execute(f"CREATE TABLE IF NOT EXISTS {table}")
                return connection.execute(statement, values).fetchall()
        except (sqlite3.OperationalError, FileExistsError, NotADirectoryError, PermissionError) as error:
            raise UserError(f"cannot use the cache {self._path} ({error}); set IMVIDEOEDIT_CACHE") from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter of damaged names in its schema
            damaged = self._path.with_suffix(".damaged")
            logging.getLogger(__name__).warning(
                "%s is damaged (%s); it is now %s and answers are asked for again", self._path, error, damaged.name
            )
            self._path.replace(damaged)
            return self._execute(statement, *values)


def _checksum(*values: object) -> str:
    return xxhash.xxh3_64_hexdigest(repr(values).encode(errors="backslashreplace"))
