"""Lists of other trainers: CSV as of DiffSynth and ViFeEdit, JSONL as of musubi-tuner, JSON as of VideoX-Fun.

Files are relative to the list's folder and stay in it.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from imvideoedit.common.errors import UserError
from imvideoedit.common.json_file import read_json
from imvideoedit.data.columns import DIFFSYNTH, MUSUBI, PLAIN, VIDEOX_FUN, Known, choose_columns, says
from imvideoedit.data.fields import inside, mapped_record
from imvideoedit.data.own_rows import line_fields, line_offsets
from imvideoedit.data.pair_record import PairRecord, Rows

LOOKED_AT = 100  # lines of a JSONL file whose keys are its columns

Fields = Callable[[int], Mapping[str, Any]]
"""The values of a row by column."""


def read_csv(path: Path, columns: Mapping[str, str]) -> Rows:
    """A CSV file with a header line, or the only one of a folder."""
    file = only_list(path, ".csv")
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            # Not strict, it would take all rows after an open quote into one text without a word.
            table = csv.DictReader(lines, strict=True)
            present, rows = list(table.fieldnames or []), list(table)
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not readable as CSV ({error}); save it as UTF-8 with commas") from error
    except csv.Error as error:
        raise UserError(
            f"{file}: not readable as CSV up to line {table.reader.line_num} ({error}); close each quote, and double "
            "those in texts"
        ) from error
    twice = [name for name in present if name and present.count(name) > 1]
    if twice:
        raise UserError(f"{file}: has the column {twice[0]} twice; remove one")
    return _rows(file, "csv", len(rows), partial(_line, rows), present, DIFFSYNTH, columns)


def read_jsonl(path: Path, columns: Mapping[str, str]) -> Rows:
    """A JSONL file with columns of common names, or the only one of a folder."""
    return _read_lines(only_list(path, ".jsonl"), "jsonl", PLAIN, columns)


def read_musubi(path: Path, columns: Mapping[str, str]) -> Rows:
    """A JSONL file as musubi-tuner reads it: the control is the source, the image or video the target."""
    return _read_lines(only_list(path, ".jsonl"), "musubi", MUSUBI, columns)


def read_videox_fun(path: Path, columns: Mapping[str, str]) -> Rows:
    """A JSON file as VideoX-Fun reads it: a list of objects, whose control is the source."""
    file = only_list(path, ".json")
    rows = read_json(file, list, "write a list of objects, [{...}, ...]")
    if not _is_table(rows):
        raise UserError(f"{file}: not a JSON list of objects; write [{{...}}, ...]")
    # Size and kind are read from the files themselves.
    rows = [{key: value for key, value in row.items() if key not in ("type", "width", "height")} for row in rows]
    return _rows(file, "videox_fun", len(rows), partial(_item, rows), _keys(rows), VIDEOX_FUN, columns)


def only_list(path: Path, ending: str) -> Path:
    """The file, or the folder's list: the one that is called ``metadata``, or else the only one.

    Raises:
        UserError: there is none, or none can be chosen.
    """
    if not path.is_dir():
        return path
    files = sorted(file for file in path.glob(f"*{ending}") if not file.name.startswith("."))
    chosen = [file for file in files if file.stem == "metadata"] or files
    if len(chosen) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise UserError(f"{path}: needs one list that ends in {ending}, but holds {found}; point to the file itself")
    return chosen[0]


def json_list(file: Path) -> list[dict[str, Any]] | None:
    """The objects of a JSON list; None if the file holds something else."""
    try:
        rows = read_json(file, list)
    except UserError:
        return None
    return rows if _is_table(rows) else None


def _is_table(rows: list[Any]) -> bool:
    return bool(rows) and all(isinstance(row, dict) for row in rows)


def csv_columns(file: Path) -> list[str]:
    """The header of a CSV file; empty if there is none."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return list(csv.DictReader(lines).fieldnames or [])
    except (UnicodeDecodeError, csv.Error):
        return []


def looked_at(file: Path) -> list[str]:
    """Columns of a JSONL file, by its first lines; damaged lines have none."""
    offsets, fields = line_offsets(file), []
    for row in range(min(len(offsets), LOOKED_AT)):
        try:
            fields.append(line_fields(file, offsets, row))
        except UserError:
            continue
    return _keys(fields)


def _read_lines(file: Path, form: str, known: Known, columns: Mapping[str, str]) -> Rows:
    offsets = line_offsets(file)
    return _rows(file, form, len(offsets), partial(line_fields, file, offsets), looked_at(file), known, columns)


def _rows(
    file: Path,
    form: str,
    length: int,
    fields: Fields,
    present: Sequence[str],
    known: Known,
    columns: Mapping[str, str],
) -> Rows:
    chosen = choose_columns(known, present, columns, file)
    return Rows(length, partial(_read_row, fields, chosen, file.parent), says(f"{form} ({file.name})", chosen))


def _read_row(fields: Fields, columns: Mapping[str, str], folder: Path, row: int) -> PairRecord:
    return mapped_record(fields(row), row, columns, partial(inside, folder, absolute=True), named=True)


def _item(rows: Sequence[Mapping[str, Any]], row: int) -> Mapping[str, Any]:
    return rows[row]


def _line(rows: Sequence[Mapping[str, Any]], row: int) -> Mapping[str, Any]:
    if None in rows[row]:  # where csv puts what the header has no column for
        raise UserError(f"row {row}: has more fields than the header; put texts with commas in quotes")
    return rows[row]


def _keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))
