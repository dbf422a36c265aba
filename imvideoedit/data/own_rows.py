"""Our own form: a folder with ``metadata.jsonl``, one JSON object a line, every field of which is checked.

``source``, ``target`` and media of other names are files relative to the folder.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from imvideoedit.common.errors import UserError
from imvideoedit.common.json_file import parse_json
from imvideoedit.data.fields import Locate, inside, split
from imvideoedit.data.pair_record import SIDES, PairRecord, Rows
from imvideoedit.world.tasks import TASKS

FIELDS = ("id", "task", "instruction", "source_prompt", "edited_prompt")


def read_own(path: Path, columns: Mapping[str, str]) -> Rows:
    """Open a folder of our own form, or its ``metadata.jsonl``.

    Raises:
        UserError: there is no such file, or columns are given, which are fixed here.
    """
    file = path / "metadata.jsonl" if path.is_dir() else path
    if columns:
        raise UserError(f"{file}: columns are fixed in this form; leave them out, or give the format jsonl")
    offsets = line_offsets(file)
    return Rows(len(offsets), partial(_read_line, file, offsets), f"own ({file.name})")


def line_offsets(file: Path) -> list[int]:
    """Where each line with content begins, in bytes.

    Raises:
        UserError: there is no such file.
    """
    # Byte offsets instead of lines, as the texts of a large data set may not fit in memory.
    offsets, position = [], 0
    try:
        with file.open("rb") as lines:
            for line in lines:
                if line.strip():
                    offsets.append(position)
                position += len(line)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {file}; check the path") from error
    return offsets


def line_fields(file: Path, offsets: Sequence[int], row: int) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        UserError: the line holds none; names the row.
    """
    with file.open("rb") as lines:
        lines.seek(offsets[row])
        text = lines.readline()
    return parse_json(text, f"row {row} of {file}", fix="write one object a line")


def _read_line(file: Path, offsets: Sequence[int], row: int) -> PairRecord:
    return own_record(line_fields(file, offsets, row), row, partial(inside, file.parent))


def own_record(fields: Mapping[str, Any], row: int, locate: Locate) -> PairRecord:
    """The record of a row of our own form.

    Raises:
        UserError: a field is missing or wrong; names the row.
    """
    label = f"row {row} ({fields['id']})" if isinstance(fields.get("id"), str) else f"row {row}"
    missing = [key for key in (*FIELDS, *SIDES) if fields.get(key) is None]
    if missing:
        raise UserError(f"{label}: lacks {', '.join(missing)}; fill it in or remove the row")
    for key in FIELDS:
        if not isinstance(fields[key], str) or not fields[key].strip():
            raise UserError(f"{label}: {key} is not a text with content; fill it in or remove the row")
    if fields["task"] not in TASKS:
        raise UserError(f"{label}: unknown task {fields['task']!r}; use one of {', '.join(TASKS)}")
    own = {key: fields[key] for key in (*SIDES, *FIELDS)}
    others = {key: value for key, value in fields.items() if key not in own and key != "scores"}
    media, texts = split(own, others, locate, label)
    return PairRecord(fields["id"], media, texts, row, fields["task"], _scores(fields, label))


def _scores(fields: Mapping[str, Any], label: str) -> dict[str, float] | None:
    scores = fields.get("scores")
    if scores is None:
        return None
    if not isinstance(scores, Mapping):
        raise UserError(f"{label}: scores is not an object of names and numbers; correct it or leave it out")
    # A datasets column has every name in every row, with None where a row has no such score.
    given = {name: value for name, value in scores.items() if value is not None}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{label}: score {name!r} is not a finite number; correct it or leave it out")
    return {name: float(value) for name, value in given.items()}
