"""The schema of each stage's rows, and how rows are named.

A row is a dict of its schema's fields. ``accepted`` is False where the stage rejected it, with a ``reason``; a rejected
row stays in its stage's file and goes no further.
"""

import hashlib
import json
from typing import Any

import pyarrow as pa

from imvideoedit.common.errors import UserError
from imvideoedit.common.json_file import parse_json

Row = dict[str, Any]

TEXTS = ("instruction", "source_prompt", "edited_prompt")
CRITERIA = ("faithfulness", "quality", "preservation")  # of a judge, each from 0 to 10
_ACCEPTED = [("accepted", pa.bool_()), ("reason", pa.string())]
_PROMPT = [
    ("scene", pa.string()),  # shared by the pairs of a scene, which are always in the same split
    ("environment", pa.string()),
    ("task", pa.string()),
    *((name, pa.string()) for name in TEXTS),
    ("height", pa.int32()),
    ("width", pa.int32()),
    ("origin", pa.string()),  # JSON of what the texts were made from
]
_IMAGES = [("source", pa.binary()), ("target", pa.binary())]  # image files' bytes
PROMPTS = pa.schema([("id", pa.string()), *_PROMPT, *_ACCEPTED])
PAIRS = pa.schema(
    [("id", pa.string()), ("prompt_id", pa.string()), *_PROMPT, ("seed", pa.int64()), *_IMAGES, *_ACCEPTED]
)
VERDICTS = pa.schema(
    [
        ("id", pa.string()),
        ("scores", pa.string()),  # JSON: criterion to 0..10
        ("comment", pa.string()),  # the judge's
        ("crossed", pa.string()),  # JSON: further judge to criterion to 0..10
        ("measures", pa.string()),  # JSON: of the pixels
        *_ACCEPTED,
    ]
)
REVIEWED = pa.schema(
    [("id", pa.string()), *((name, pa.string()) for name in TEXTS), ("reviewers", pa.int32()), *_ACCEPTED]
)


def prompt_row(scene: str, environment: str, task: str, size: tuple[int, int], origin: str, **fields: str) -> Row:
    """An accepted row of ``PROMPTS``; ``fields`` are its id and texts, empty where left out."""
    row: Row = {"scene": scene, "environment": environment, "task": task, "origin": origin}
    row |= {"height": size[0], "width": size[1], "accepted": True, "reason": ""}
    return row | dict.fromkeys(TEXTS, "") | fields


def digest(*facts: Any) -> str:
    """16 hex digits that identify facts in JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def held(row: Row, column: str) -> dict[str, Any]:
    """The JSON object in a row's column.

    Raises:
        UserError: there is none.
    """
    return parse_json(row[column] or "", f"the column {column} of row {row.get('id', '')}", fix="make its shard again")


def scores_of(row: Row) -> dict[str, float]:
    """The judge's scores by criterion; empty where there are none.

    Raises:
        UserError: the column holds something else.
    """
    return _scores(held(row, "scores"), row)


def crossed_of(row: Row) -> dict[str, dict[str, float]]:
    """Scores by criterion of each further judge.

    Raises:
        UserError: the column holds something else.
    """
    return {name: _scores(scores, row) for name, scores in held(row, "crossed").items()}


def _scores(found: Any, row: Row) -> dict[str, float]:
    numbers = isinstance(found, dict) and all(type(score) in (int, float) for score in found.values())
    if not numbers or (found and not found.keys() >= set(CRITERIA)):
        raise UserError(f"the scores of row {row.get('id', '')} are no numbers by criterion; make its shard again")
    return found


def rejected(row: Row, reason: str) -> Row:
    """The row, rejected for a reason in one line."""
    return row | {"accepted": False, "reason": " ".join(reason.split())}
