"""Hugging Face data sets, saved by ``save_to_disk`` or as parquet files, with our columns or mapped ones."""

import glob
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from imvideoedit.common.errors import UserError
from imvideoedit.common.json_file import read_json
from imvideoedit.data.columns import PLAIN, choose_columns, says
from imvideoedit.data.fields import inside, mapped_record
from imvideoedit.data.media import Medium
from imvideoedit.data.own_rows import FIELDS, own_record
from imvideoedit.data.pair_record import SIDES, PairRecord, Rows
from imvideoedit.data.splits import choose_split, files_of_split, parquet_in, refuse_split

SAVE_AGAIN = "save the data set again"


def read_dataset(path: Path, columns: Mapping[str, str], split: str | None = None) -> Rows:
    """Open a data set: of several splits ``split``, or else ``train``, by the names of folders and files.

    Images and videos are embedded, or files in the data set's folder; no address is ever fetched, and no other file is
    opened. With all of our own columns, and none given, rows are checked as our own.

    Raises:
        UserError: it cannot be read, has no such split, or its columns are unknown.
    """
    rows, chosen_split = _opened(path, split)
    present, folder = set(rows.column_names), path if path.is_dir() else path.parent
    if not columns and {"id", "task"} <= present:
        form = f"datasets ({', '.join((*SIDES, *FIELDS))})"
        return Rows(len(rows), partial(_read_own, rows, folder), form + chosen_split)
    chosen = choose_columns(PLAIN, present, columns, path)
    return Rows(len(rows), partial(_read_row, rows, chosen, folder), says("datasets", chosen) + chosen_split)


def _opened(folder: Path, split: str | None) -> tuple[Any, str]:
    """The rows, and in words which split was chosen."""
    import datasets  # slow to import, and not needed for other forms

    saved = any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))
    try:
        if saved:
            return _saved(folder, split)
        files, said = parquet_files(folder, split)
        # As plain bytes and names: with the files' own features, datasets would open what cells name to embed it.
        features = plain_features(files[0])
        # Quoted, as datasets takes these names for patterns.
        names = [glob.escape(str(file)) for file in files]
        return _undecoded(datasets.Dataset.from_parquet(names, features=features)), said
    except UserError:
        raise
    except Exception as error:  # pyarrow and datasets raise many types on damaged files
        raise UserError(f"{folder}: not a readable datasets dataset ({error}); save or download it again") from error


def parquet_files(path: Path, split: str | None) -> tuple[list[Path], str]:
    """The parquet files of a split in a folder, and in words which was chosen; of a file itself.

    Raises:
        UserError: there is no such split, or a file is a link that leads out of the folder.
    """
    if path.is_file():
        refuse_split(path, split, "one file")
        return [path], ""
    files = parquet_in(path)
    for file in files:
        if not file.resolve().is_relative_to(_repository(path.resolve())):
            raise UserError(f"{file} leads out of the data folder; put the file itself there")
    return files_of_split(path, files, split)


def plain_features(file: Path) -> Any:
    """The columns of a parquet file as they are stored: an image is its bytes and its path, and is not decoded."""
    import datasets
    import pyarrow.parquet

    schema = pyarrow.parquet.read_schema(file)
    return datasets.Features.from_arrow_schema(schema.remove_metadata())


def _repository(folder: Path) -> Path:
    """Where links of a folder may lead: into itself; of a snapshot in the hub's cache, to that repository's blobs."""
    root = next((one.parent for one in (folder, *folder.parents) if one.name == "snapshots"), folder)
    return root if (root / "blobs").is_dir() else folder


def _saved(folder: Path, split: str | None) -> tuple[Any, str]:
    import datasets

    said = ""
    if (folder / "dataset_dict.json").is_file():
        splits = read_json(folder / "dataset_dict.json", fix=SAVE_AGAIN)["splits"]
        name = choose_split(folder, splits, split)
        others = ", ".join(sorted(set(splits) - {name}))
        said = f"; the split {name}, not used: {others}" if others else ""
        folder = inside(folder, name)
    else:
        refuse_split(folder, split, "a saved data set")
    for file in read_json(folder / "state.json", fix=SAVE_AGAIN)["_data_files"]:
        inside(folder, file["filename"])
    return _undecoded(datasets.load_from_disk(str(folder)).with_format(None)), said


def _undecoded(rows: Any) -> Any:
    """With images and videos as bytes or paths; other columns that would be decoded are left out."""
    import datasets
    from datasets.features.features import require_decoding

    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
        elif isinstance(feature, datasets.Video):
            rows = rows.cast_column(name, datasets.Video(decode=False))
        elif require_decoding(feature):
            rows = rows.remove_columns(name)
    return rows


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
