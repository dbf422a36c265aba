"""Hugging Face data sets, saved by ``save_to_disk`` or as parquet files, with our columns or mapped ones."""

import glob
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from imvideoedit.common.errors import UserError
from imvideoedit.data.columns import PLAIN, choose_columns, says
from imvideoedit.data.fields import inside, mapped_record
from imvideoedit.data.media import Medium
from imvideoedit.data.own_rows import FIELDS, own_record
from imvideoedit.data.pair_record import SIDES, PairRecord, Rows


def read_dataset(path: Path, columns: Mapping[str, str]) -> Rows:
    """Open a data set; of several splits it is ``train``, of parquet files those whose names begin so, if any do.

    Images and videos are embedded, or files in the data set's folder; no address is ever fetched. With all of our own
    columns, and none given, rows are checked as our own.

    Raises:
        UserError: it cannot be read, or its columns are unknown.
    """
    rows = _opened(path)
    present, folder = set(rows.column_names), path if path.is_dir() else path.parent
    if not columns and {"id", "task"} <= present:
        return Rows(len(rows), partial(_read_own, rows, folder), f"datasets ({', '.join((*SIDES, *FIELDS))})")
    chosen = choose_columns(PLAIN, present, columns, path)
    return Rows(len(rows), partial(_read_row, rows, chosen, folder), says("datasets", chosen))


def _opened(folder: Path) -> Any:
    import datasets  # slow to import, and not needed for other forms

    saved = any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))
    files = [folder] if folder.is_file() else sorted(folder.rglob("*.parquet"))
    try:
        if saved:
            rows = datasets.load_from_disk(str(folder))
        else:
            train = [file for file in files if file.name.startswith("train")]
            rows = datasets.Dataset.from_parquet([glob.escape(str(file)) for file in train or files])
        if isinstance(rows, datasets.DatasetDict):
            rows = _only_split(folder, rows)
        return _undecoded(rows)
    except UserError:
        raise
    except Exception as error:  # pyarrow and datasets raise many types on damaged files
        raise UserError(f"{folder}: not a readable datasets dataset ({error}); save or download it again") from error


def _undecoded(rows: Any) -> Any:
    """With images and videos as bytes or paths; other columns that would be decoded are left out."""
    import datasets
    from datasets.features.features import require_decoding

    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image) or (name in SIDES and not isinstance(feature, datasets.Video)):
            rows = rows.cast_column(name, datasets.Image(decode=False))
        elif isinstance(feature, datasets.Video):
            rows = rows.cast_column(name, datasets.Video(decode=False))
        elif require_decoding(feature):
            rows = rows.remove_columns(name)
    return rows


def _only_split(folder: Path, splits: Mapping[str, Any]) -> Any:
    if len(splits) > 1 and "train" not in splits:
        raise UserError(f"{folder}: holds the splits {', '.join(splits)}; name one 'train' or point into one")
    return splits["train"] if "train" in splits else next(iter(splits.values()))


def _read_own(rows: Any, folder: Path, row: int) -> PairRecord:
    return own_record(rows[row], row, partial(_embedded_or_inside, folder))


def _read_row(rows: Any, columns: Mapping[str, str], folder: Path, row: int) -> PairRecord:
    return mapped_record(rows[row], row, columns, partial(_embedded_or_inside, folder))


def _embedded_or_inside(folder: Path, value: Any) -> Medium:
    """The bytes of a cell, or the file in the data set's folder that it names."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return value
    if not value:
        raise ValueError("holds no image; save the data set with its images embedded, or remove the row")
    return inside(folder, value, absolute=True)
