"""Which columns of a foreign data set hold what, and what its cells say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data_recipes.rows import TEXTS
from imvideoedit.common.errors import UserError
from imvideoedit.world.tasks import TASKS

PRESETS = Path(__file__).parent / "presets.yaml"
FIELDS = ("source", "target", *TEXTS, "task", "mask")
REQUIRED = FIELDS[:3]


@dataclass(frozen=True)
class ColumnMap:
    """Which columns of a foreign data set hold what."""

    columns: Mapping[str, Sequence[str]]  # field to the columns that may hold it; the first that exists counts
    tasks: Mapping[str, str]  # the set's kinds of edits to ``TASKS``; a model names the task of other kinds


def read_map(text: str | None, preset: str | None) -> ColumnMap:
    """The mapping of ``source=a,target=b,…``, which overrides that of a preset.

    Raises:
        UserError: an unknown preset or field, or a required field is missing.
    """
    presets = yaml.safe_load(PRESETS.read_text())
    if preset is not None and preset not in presets:
        raise UserError(f"there is no preset {preset!r}; the presets are {', '.join(presets)}")
    chosen = presets[preset] if preset else {"columns": {}}
    columns = {field: list(names) for field, names in chosen["columns"].items()}
    for item in (text or "").split(","):
        if item:
            field, _, column = item.partition("=")
            if field not in FIELDS or not column:
                raise UserError(f"--map has {item!r}; write FIELD=COLUMN with a field of {', '.join(FIELDS)}")
            columns[field] = [column]
    missing = [field for field in REQUIRED if field not in columns]
    if missing:
        raise UserError(f"--map does not say which column holds {', '.join(missing)}; or use a --preset")
    return ColumnMap(columns, chosen.get("tasks", {}))


def cells(name: str, fields: Mapping[str, Any], mapping: ColumnMap) -> dict[str, Any]:
    """The cells of a row by our fields; None where there is none.

    Raises:
        UserError: the data set lacks a required column.
    """
    found: dict[str, Any] = {}
    for field, columns in mapping.columns.items():
        column = next((each for each in columns if each in fields), None)
        if column is None and field in REQUIRED:
            known = ", ".join(sorted(key for key in fields if key))
            raise UserError(f"{name} has no column {' or '.join(columns)} for {field}, but {known}; correct --map")
        found[field] = fields.get(column) if column else None
    return found


def text_of(value: Any) -> str:
    """A cell's text in one line; empty if there is none."""
    if isinstance(value, (list, tuple)):  # some data sets write an instruction several ways
        value = next((each for each in value if each), "")
    return " ".join(str(value).split()) if value is not None else ""


def task_of(kind: str, tasks: Mapping[str, str]) -> str:
    """The task of ``TASKS`` that a data set's kind of edit is; empty if that is not known."""
    plain = kind.lower().strip().replace(" ", "_").replace("-", "_")
    return plain if plain in TASKS else tasks.get(plain, "")
