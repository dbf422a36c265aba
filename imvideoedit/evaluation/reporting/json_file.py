"""JSON files without NaN."""

import json
import math
from pathlib import Path
from typing import Any

from imvideoedit.common.files import replacing


def jsonable(value: Any) -> Any:
    """The value with None in place of NaN and infinities, at any depth of dicts, lists and tuples."""
    if isinstance(value, dict):
        return {key: jsonable(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(own) for own in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write a value as JSON, with None in place of NaN; the file is complete or absent."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(jsonable(value), indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
