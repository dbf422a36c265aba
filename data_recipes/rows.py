"""What a row of each stage holds, and how rows are named.

A row is a dict of the fields of its stage's schema. ``accepted`` is False where the stage rejected it, and ``reason``
then says why; a rejected row stays where it was rejected and goes no further.
"""

import hashlib
import json
from typing import Any

import pyarrow as pa

Row = dict[str, Any]

_VERDICT = [("accepted", pa.bool_()), ("reason", pa.string())]
_TEXTS = [
    ("scene", pa.string()),  # what pairs of one scene share; a split never parts them
    ("environment", pa.string()),
    ("task", pa.string()),
    ("instruction", pa.string()),
    ("source_prompt", pa.string()),
    ("edited_prompt", pa.string()),
    ("height", pa.int32()),
    ("width", pa.int32()),
    ("origin", pa.string()),  # JSON of what the texts were made from
]
PROMPTS = pa.schema([("id", pa.string()), *_TEXTS, *_VERDICT])
PAIRS = pa.schema(
    [
        ("id", pa.string()),
        ("prompt_id", pa.string()),
        *_TEXTS,
        ("seed", pa.int64()),
        ("source", pa.binary()),  # an image file's bytes
        ("target", pa.binary()),
        *_VERDICT,
    ]
)
VERDICTS = pa.schema(
    [
        ("id", pa.string()),
        ("scores", pa.string()),  # JSON: criterion to 0..10
        ("comment", pa.string()),  # the judge's
        ("crossed", pa.string()),  # JSON: further judge to criterion to 0..10
        ("measures", pa.string()),  # JSON: of the pixels
        *_VERDICT,
    ]
)
REVIEWED = pa.schema(
    [
        ("id", pa.string()),
        ("instruction", pa.string()),
        ("source_prompt", pa.string()),
        ("edited_prompt", pa.string()),
        ("reviewers", pa.int32()),
        *_VERDICT,
    ]
)


def digest(*facts: Any) -> str:
    """16 hex digits that name what can be said in JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def rejected(row: Row, reason: str) -> Row:
    """The row with a reason, in one line, why it goes no further."""
    return row | {"accepted": False, "reason": " ".join(reason.split())}
