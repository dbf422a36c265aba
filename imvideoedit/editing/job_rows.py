"""Rows of a list of edits, as texts or values by column; and the numbers and texts that they hold."""

import csv
import json
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TextIO

from imvideoedit.common.errors import UserError
from imvideoedit.common.json_file import parse_json

LISTS = (".jsonl", ".csv")
MOST = 2**64  # no number of a row is as large
SHOWN = 80  # characters of a wrong value in an error
FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def read_rows(path: Path) -> Iterator[dict[str, Any] | str]:
    """Rows of a ``.jsonl`` or ``.csv`` list, without blank ones; a text that says what is wrong where one is broken.

    Raises:
        UserError: the list cannot be read, or a ``.csv`` has no proper header.
    """
    try:
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                yield from _table(path, file)
        else:
            with path.open(encoding="utf-8-sig") as file:
                yield from map(_object, filter(str.strip, file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list {path} cannot be read ({error}); give UTF-8 text") from error


def _table(path: Path, file: TextIO) -> Iterator[dict[str, Any] | str]:
    """Rows of a CSV file; in quotes a text may have commas and line breaks."""
    # Not strict, it would glue text after a closed quote to it, and take all that follows an open one without a word.
    table = csv.reader(file, strict=True)
    columns = _columns(path, table)
    while True:
        try:
            values = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            end = f"which ends in line {table.line_num}"
            yield f"it is no row of CSV, {end} ({error}); close each quote, and double those in texts"
            continue
        if any(values[len(columns) :]):
            yield f"it has {len(values)} fields, but the header {len(columns)}; put texts with commas in quotes"
        elif any(values):
            yield dict(zip(columns, values, strict=False))


def _columns(path: Path, table: Iterator[list[str]]) -> list[str]:
    """The header."""
    try:
        columns = [name.strip() for name in next(table, [])]
    except csv.Error as error:
        raise UserError(f"the header of {path} cannot be read as CSV ({error}); name columns without quotes") from error
    for name in columns:
        if name and columns.count(name) > 1:
            raise UserError(f"the header of {path} has the column {name} twice; remove one")
    for separator, words in ((";", "semicolons"), ("\t", "tabs")):
        if len(columns) == 1 and separator in columns[0]:
            raise UserError(f"the columns of {path} are separated by {words}; save it with commas")
    return columns


def _object(line: str) -> dict[str, Any] | str:
    """The object of a line, or what is wrong with it."""
    try:
        return parse_json(line, "the row", fix="give one object a line")
    except UserError as error:
        return str(error)


def parse_text(key: str, value: Any) -> str:
    """A value as a text.

    Raises:
        UserError: it is neither text nor number.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UserError(f"{key} is {_shown(value)}; give a text")
    return str(value)


def check_text(key: str, text: str) -> None:
    """See that a text can be written.

    Raises:
        UserError: it holds half a character, such as half an emoji, or a zero character.
    """
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(f"{key} is {_shown(text)}, which holds half a character or a zero one; write it in UTF-8")


def parse_flag(key: str, value: Any) -> bool:
    """A value as yes or no.

    Raises:
        UserError: it is neither.
    """
    if str(value).lower() not in FLAGS:
        raise UserError(f"{key} is {_shown(value)}; say true or false")
    return FLAGS[str(value).lower()]


def parse_number(key: str, value: Any, whole: bool = False) -> float:
    """A value as a number; as an int, to the last digit, if ``whole``.

    Raises:
        UserError: it is none, too large or has a fraction.
    """
    try:
        if isinstance(value, bool):
            raise InvalidOperation
        number = Decimal(str(value))
    except InvalidOperation as error:
        raise UserError(f"{key} is {_shown(value)}; it must be a number") from error
    if not number.is_finite() or not -MOST < number < MOST:
        raise UserError(f"{key} is {_shown(value)}; it must be a number below 2^64")
    if not whole:
        return float(number)
    if number != number.to_integral_value():
        raise UserError(f"{key} is {_shown(value)}; it must be a whole number")
    return int(number)


def _shown(value: Any) -> str:
    return repr(value)[:SHOWN] if isinstance(value, str) else json.dumps(value, default=str)[:SHOWN]
