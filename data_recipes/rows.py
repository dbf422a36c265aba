"""The schema of each stage's rows, and how rows are named.

A row is a dict of its schema's fields. ``accepted`` is False where the stage rejected it, with a ``reason``; a rejected
row stays in its stage's file and goes no further.
"""

import hashlib
import json
from typing import Any

import pyarrow as pa

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


def rejected(row: Row, reason: str) -> Row:
    """The row, rejected for a reason in one line."""
    return row | {"accepted": False, "reason": " ".join(reason.split())}
