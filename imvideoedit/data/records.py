"""One schema of image pairs, in two formats on disk with the same fields (``PairRecord``):

- a folder with ``metadata.jsonl``, one JSON object a line, whose ``source`` and ``target`` name image
  files relative to the folder;
- a Hugging Face ``datasets`` dataset, saved by ``save_to_disk`` or as parquet files, whose columns
  ``source`` and ``target`` hold the encoded images.
"""

import glob
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, overload

import numpy as np

from imvideoedit.common.errors import UserError
from imvideoedit.video.images import image_size, load_rgb
from imvideoedit.world.tasks import TASKS

_TEXTS = ("id", "task", "instruction", "source_prompt", "edited_prompt")


@dataclass(frozen=True)
class PairRecord:
    """An image before and after an edit. Images are decoded by each :meth:`load`.

    Attributes:
        id: unique in its data set.
        task: one of ``TASKS``.
        source, target: the image before and after, as a file's path or its bytes.
        instruction: what to change, in the imperative.
        source_prompt, edited_prompt: descriptions of the scene before and after.
        scores: a filter's scores by name, or None.
        row: index in the data set, from 0.
    """

    id: str
    task: str
    source: Path | bytes = field(repr=False)
    target: Path | bytes = field(repr=False)
    instruction: str
    source_prompt: str
    edited_prompt: str
    scores: dict[str, float] | None
    row: int

    @property
    def name(self) -> str:
        """How errors call the record."""
        return f"row {self.row} ({self.id})"

    def load(self) -> tuple[np.ndarray, np.ndarray]:
        """Decode both images, uint8 RGB [H, W, 3].

        Raises:
            UserError: an image cannot be decoded, or the two differ in size; names the row.
        """
        source_HWC, target_HWC = (load_rgb(image, name) for image, name in self._images())
        self._check_sizes(source_HWC.shape[:2], target_HWC.shape[:2])
        return source_HWC, target_HWC

    def size(self) -> tuple[int, int]:
        """(height, width) of both images, from their headers.

        Raises:
            UserError: as ``load``, as far as the headers tell.
        """
        source, target = (image_size(image, name) for image, name in self._images())
        self._check_sizes(source, target)
        return source

    def _images(self) -> list[tuple[Path | bytes, str]]:
        images = {"source": self.source, "target": self.target}
        return [(i, f"{self.name}: {key} {i if isinstance(i, Path) else 'image'}") for key, i in images.items()]

    def _check_sizes(self, source: tuple[int, ...], target: tuple[int, ...]) -> None:
        if source != target:
            sizes = [f"{width}x{height}" for height, width in (source, target)]
            raise UserError(
                f"{self.name}: source is {sizes[0]} but target is {sizes[1]} pixels; "
                "both must have one size: crop or resize both in the same way, or remove the row"
            )


class _Records(Sequence[PairRecord]):
    """Rows that are read and validated on indexing; can be pickled."""

    def __init__(self, length: int, read: Callable[[int], PairRecord]) -> None:
        self._length = length
        self._read = read

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> PairRecord: ...
    @overload
    def __getitem__(self, index: slice) -> "_Records": ...
    def __getitem__(self, index: int | slice) -> "PairRecord | _Records":
        rows = range(self._length)[index]
        if isinstance(rows, range):
            return _Records(len(rows), partial(self._read_from, rows))
        return self._read(rows)

    def _read_from(self, rows: range, index: int) -> PairRecord:
        return self._read(rows[index])


def open_records(path: Path | str) -> Sequence[PairRecord]:
    """Open a data set of either format; rows are read and validated on indexing.

    Indexing a row that does not fit the schema raises a ``UserError`` naming it.

    Args:
        path: the folder. Of several splits it is ``train``. Parquet files are converted once into
            the cache folder of ``datasets``.

    Raises:
        UserError: there is no such folder, or it holds no or an ambiguous data set.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one with metadata.jsonl or a datasets dataset")
    if (folder / "metadata.jsonl").is_file():
        return _open_jsonl(folder)
    saved = any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))
    parquet = sorted(folder.rglob("*.parquet"))
    if not saved and not parquet:
        raise UserError(
            f"{folder}: holds no metadata.jsonl, saved datasets dataset or parquet file; "
            "point to the folder that holds one of them directly"
        )
    return _open_dataset(folder, None if saved else parquet)


def _open_jsonl(folder: Path) -> _Records:
    # Byte offsets instead of lines, as the texts of a large data set may not fit in memory.
    file = folder / "metadata.jsonl"
    offsets, position = [], 0
    with file.open("rb") as lines:
        for line in lines:
            if line.strip():
                offsets.append(position)
            position += len(line)

    return _Records(len(offsets), partial(_read_line, file, offsets))


def _read_line(file: Path, offsets: Sequence[int], row: int) -> PairRecord:
    with file.open("rb") as lines:
        lines.seek(offsets[row])
        text = lines.readline()
    try:
        # utf-8-sig: editors on Windows write a byte order mark.
        fields = json.loads(text.decode("utf-8-sig"))
    except ValueError as error:
        raise UserError(f"row {row} of {file}: not JSON ({error}); write one object a line") from error
    if not isinstance(fields, dict):
        raise UserError(f"row {row} of {file}: not a JSON object; write one object a line")
    return _record(fields, row, partial(_inside, file.parent))


def _inside(folder: Path, name: Any) -> Path:
    if not isinstance(name, str) or not name.strip():
        raise ValueError("is not a file name; give one relative to the folder of metadata.jsonl")
    path = folder / name
    strange = PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or ".." in PureWindowsPath(name).parts
    if strange or not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{name!r} leads out of the data folder; move the file into it and give its relative path")
    return path


def _open_dataset(folder: Path, parquet: list[Path] | None) -> _Records:
    import datasets  # slow to import, and not needed for the other format

    try:
        if parquet is None:
            rows = datasets.load_from_disk(str(folder))
        else:
            train = [file for file in parquet if file.name.startswith("train")]
            rows = datasets.Dataset.from_parquet([glob.escape(str(file)) for file in train or parquet])
        if isinstance(rows, datasets.DatasetDict):
            rows = _only_split(folder, rows)
        for key in {"source", "target"} & set(rows.column_names):
            rows = rows.cast_column(key, datasets.Image(decode=False))
    except UserError:
        raise
    except Exception as error:  # pyarrow and datasets raise many types on damaged files
        raise UserError(f"{folder}: not a readable datasets dataset ({error}); save or download it again") from error
    return _Records(len(rows), partial(_read_row, rows))


def _read_row(rows: Any, row: int) -> PairRecord:
    return _record(rows[row], row, _embedded)


def _only_split(folder: Path, splits: Mapping[str, Any]) -> Any:
    if len(splits) > 1 and "train" not in splits:
        raise UserError(f"{folder}: holds the splits {', '.join(splits)}; name one 'train' or point into one")
    return splits["train"] if "train" in splits else next(iter(splits.values()))


def _embedded(image: Any) -> bytes:
    if not isinstance(image, Mapping) or not image.get("bytes"):
        raise ValueError("holds no image; save the data set with its images embedded, or remove the row")
    return image["bytes"]


def _record(fields: Mapping[str, Any], row: int, locate: Callable[[Any], Path | bytes]) -> PairRecord:
    label = f"row {row} ({fields['id']})" if isinstance(fields.get("id"), str) else f"row {row}"
    missing = [key for key in (*_TEXTS, "source", "target") if fields.get(key) is None]
    if missing:
        raise UserError(f"{label}: lacks {', '.join(missing)}; fill it in or remove the row")
    for key in _TEXTS:
        if not isinstance(fields[key], str) or not fields[key].strip():
            raise UserError(f"{label}: {key} is not a text with content; fill it in or remove the row")
    if fields["task"] not in TASKS:
        raise UserError(f"{label}: unknown task {fields['task']!r}; use one of {', '.join(TASKS)}")
    images: dict[str, Any] = {}
    for key in ("source", "target"):
        try:
            images[key] = locate(fields[key])
        except ValueError as error:
            raise UserError(f"{label}: {key} {error}") from error
    return PairRecord(**{key: fields[key] for key in _TEXTS}, **images, scores=_scores(fields, label), row=row)


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
