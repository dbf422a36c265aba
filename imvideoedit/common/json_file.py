"""JSON: the one reader of files that others may have written, and a writer of files without NaN.

JSON that Python reads, but that no other part of this package could use, is refused while it is read: NaN and
infinities, numbers beyond a double's range or 64 bits, lone surrogates, keys given twice, deep nesting.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import xxhash

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing

DEPTH = 64  # lists and objects within each other
CHECK = "check"  # the entry with the checksum of the others
LARGEST = 2**64  # whole numbers are smaller, of either sign
_KINDS: dict[type, str] = {dict: "object", list: "list", str: "text", object: "value"}
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_json(path: Path | str, kind: type = dict, fix: str = "restore it, or remove it") -> Any:
    """The value of a JSON file in UTF-8, with or without a byte order mark.

    Args:
        kind: that the value must have: ``dict``, ``list``, ``str``, or ``object`` for any.
        fix: how to fix it, for the error.

    Raises:
        UserError: missing, unreadable, damaged, or of another kind.
    """
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({_reason(error)}); {fix}") from error
    return parse_json(content, str(path), kind, fix)


def parse_json(text: str | bytes, where: str, kind: type = dict, fix: str = "write it again") -> Any:
    """The value of a JSON text.

    Args:
        where: it stands, for the error, such as ``row 3 of pairs.jsonl``.
        kind, fix: as in :func:`read_json`.

    Raises:
        UserError: damaged, or of another kind.
    """
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        value = json.loads(
            decoded, parse_constant=_no_constant, parse_float=_float, parse_int=_int, object_pairs_hook=_object
        )
        _check(value, 0)
    except RecursionError as error:
        raise UserError(f"{where}: not JSON (nested too deeply); {fix}") from error
    except ValueError as error:  # of the decoder, of json, of int(), and of the checks below
        raise UserError(f"{where}: not JSON ({_reason(error)}); {fix}") from error
    if not isinstance(value, kind):
        raise UserError(f"{where}: not a JSON {_KINDS[kind]}; {fix}")
    return value


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


def write_checked(path: Path, value: dict[str, Any], indent: int | None = None) -> None:
    """As :func:`write_json`, with a checksum among the entries for :func:`read_checked`."""
    held = jsonable(value)
    write_json(path, held | {CHECK: _checksum(held)}, indent)


def read_checked(path: Path, fix: str = "restore it, or remove it") -> dict[str, Any]:
    """The entries of a file by :func:`write_checked`; also of one by an earlier version, which has no checksum.

    Raises:
        UserError: as :func:`read_json`, or the entries are not those that were written.
    """
    held = read_json(path, fix=fix)
    # By its value, so that damage to its name does not pass for a file without one.
    found = [key for key, value in held.items() if value == _checksum({k: v for k, v in held.items() if k != key})]
    if found != [CHECK] and (found or CHECK in held):
        raise UserError(f"{path} is damaged: its content is not what was written; {fix}")
    return {key: value for key, value in held.items() if key != CHECK}


def _checksum(entries: dict[str, Any]) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(entries, sort_keys=True).encode())


def _no_constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which JSON has no word for")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _int(text: str) -> int:
    # Counted before it is parsed: int() takes quadratic time.
    if len(text) > 21 or abs(int(text)) >= LARGEST:
        raise ValueError(f"the number {text[:20]}... is too large")
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{_shown(next(name for name in names if names.count(name) > 1))} is given twice")
    return found


def _check(value: Any, depth: int) -> None:
    """Refuse deep nesting and texts that no file can hold."""
    if isinstance(value, str):
        if _SURROGATE.search(value):
            raise ValueError(f"the text {_shown(value)} has half of a surrogate pair")
    elif isinstance(value, dict | list):
        if depth == DEPTH:
            raise ValueError("nested too deeply")
        for own in (*value, *value.values()) if isinstance(value, dict) else value:
            _check(own, depth + 1)


# For texts with JSON somewhere in them, whose numbers and texts a schema checks.
DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_float, object_pairs_hook=_object)


def _shown(text: str) -> str:
    return ascii(text[:30])


def _reason(error: Exception) -> str:
    """An error's words in one line, without the content it quotes and the path that is named already."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    return " ".join(str(error).split())[:200]
