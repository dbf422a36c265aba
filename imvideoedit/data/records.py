"""Open training data of any form that people have; every row becomes a ``PairRecord``."""

from collections.abc import Callable, Mapping
from pathlib import Path

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import check_name
from imvideoedit.data.columns import DIFFSYNTH, MUSUBI, PLAIN, VIDEOX_FUN
from imvideoedit.data.dataset_rows import read_dataset
from imvideoedit.data.folder_rows import read_ai_toolkit, read_folders, subfolders
from imvideoedit.data.list_rows import (
    csv_columns,
    json_list,
    looked_at,
    only_list,
    read_csv,
    read_jsonl,
    read_musubi,
    read_videox_fun,
)
from imvideoedit.data.own_rows import read_own
from imvideoedit.data.pair_record import PairRecord, Rows
from imvideoedit.data.splits import parquet_in, refuse_split, split_folder

__all__ = ["FORMATS", "PairRecord", "Rows", "open_records"]

Reader = Callable[[Path, Mapping[str, str]], Rows]
"""From a path and the columns of our fields to the rows."""

FORMATS: dict[str, Reader] = {
    "own": read_own,
    "datasets": read_dataset,
    "folders": read_folders,
    "ai_toolkit": read_ai_toolkit,
    "csv": read_csv,
    "jsonl": read_jsonl,
    "musubi": read_musubi,
    "videox_fun": read_videox_fun,
}
LISTS = {".csv": "csv", ".jsonl": "jsonl", ".json": "videox_fun"}  # where the columns of a file are not known


def open_records(
    path: Path | str, format: str = "auto", columns: Mapping[str, str] | None = None, split: str | None = None
) -> Rows:
    """Open a data set; rows are read and validated on indexing.

    Indexing a row that is not as its form wants it raises a ``UserError`` naming it.

    Args:
        path: a folder, or a list or parquet file. Parquet files are converted once into the cache folder of
            ``datasets``.
        format: one of ``FORMATS``, or ``auto``: by what is there.
        columns: the data's column, or subfolder, of each of our names (``source``, ``target``, ``instruction``,
            ``edited_prompt``, ``source_prompt``, and inputs such as ``mask``) that is not recognised by itself.
        split: which split to read, by the names of folders and files; ``train`` where there are any and None is given.

    Raises:
        UserError: there is no such path, no such format, no such split, or no or an ambiguous data set.
    """
    path, columns = Path(path), dict(columns or {})
    check_name(path)
    if not path.exists():
        raise UserError(f"{path}: no such folder; give one with metadata.jsonl or a datasets dataset")
    if not path.is_file() and not path.is_dir():
        raise UserError(f"{path}: is a device or a pipe, no data set; give a folder or a file")
    path, split = split_folder(path, split)
    if format == "auto":
        format = recognise(path, columns)
    if format not in FORMATS:
        raise UserError(f"there is no format {format!r}; choose auto, {', '.join(FORMATS)}")
    if format in ("folders", "ai_toolkit") and not path.is_dir():
        raise UserError(f"{path}: is a file, and {format} are folders; give one, or another format")
    if format == "datasets":
        return read_dataset(path, columns, split)
    refuse_split(path, split, format)
    return FORMATS[format](path, columns)


def recognise(path: Path, columns: Mapping[str, str]) -> str:
    """The form of a data set, by its files.

    Raises:
        UserError: it is none that is known.
    """
    if path.is_file():
        return _list_form(path, columns) or LISTS.get(path.suffix.lower()) or _unknown(path)
    if {"source", "target"} <= set(columns) and {columns["source"], columns["target"]} <= set(subfolders(path)):
        return "folders"
    if (path / "metadata.jsonl").is_file():
        return _list_form(path / "metadata.jsonl", columns) or "own"
    saved = any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))
    if saved or parquet_in(path):
        return "datasets"
    lists = {ending: form for ending in (".jsonl", ".csv", ".json") if (form := _form_of_lists(path, ending, columns))}
    if len(lists) > 1:
        raise UserError(f"{path}: holds lists that end in {' and '.join(lists)}; point to one of the files itself")
    if lists:
        return next(iter(lists.values()))
    found = set(subfolders(path))
    if {columns.get("source", "source"), columns.get("target", "target")} <= found:
        return "folders"
    if any(one.startswith("control") for one in found):
        return "ai_toolkit"
    return _unknown(path)


def _form_of_lists(path: Path, ending: str, columns: Mapping[str, str]) -> str | None:
    known = [file for file in path.glob(f"*{ending}") if _list_form(file, columns)]
    return _list_form(only_list(path, ending), columns) if known else None


def _list_form(file: Path, columns: Mapping[str, str]) -> str | None:
    """The form of a file; None if it is no list of pairs."""
    ending = file.suffix.lower()
    if ending == ".parquet":
        return "datasets"
    if ending == ".csv":
        return "csv" if columns or set(csv_columns(file)) & set(DIFFSYNTH["target"]) else None
    if ending == ".json":
        rows = json_list(file) or []
        return "videox_fun" if any(VIDEOX_FUN["target"][0] in row for row in rows) or (rows and columns) else None
    if ending != ".jsonl":
        return None
    present = set(looked_at(file))
    if present & set(MUSUBI["target"]):
        return "musubi"
    if columns or (present & set(PLAIN["target"]) and not present & {"id", "task"}):
        return "jsonl"
    return "own" if present & {"source", "target"} else None


def _unknown(path: Path) -> str:
    raise UserError(
        f"{path}: holds no metadata.jsonl, saved datasets dataset or parquet file, no list (.csv, .jsonl, .json) and "
        "no folders source/ and target/ or control/; point to what holds one of them directly, or give its format"
    )
