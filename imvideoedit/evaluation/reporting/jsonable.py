"""What JSON can say."""

import math
from typing import Any


def jsonable(value: Any) -> Any:
    """The value with None in place of every number that is not known, at any depth of dicts and lists."""
    if isinstance(value, dict):
        return {key: jsonable(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(own) for own in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
