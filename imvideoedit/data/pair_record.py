"""A training pair with its media and texts, and how rows of any form become one (``records`` opens data sets)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, overload

import numpy as np

from imvideoedit.common.errors import UserError
from imvideoedit.data.media import Medium, Shape, is_clip, is_medium, medium_shape, read_medium

SIDES = ("source", "target")
PROMPTS = ("edited_prompt", "instruction")  # the first that there is, is the text of training
TEXTS = (*PROMPTS, "source_prompt", "id", "task")  # never a file's name
NAME_LENGTH = 255  # characters of the longest text that may be a file's name

Locate = Callable[[Any], Medium]
"""From a field's value to its medium; raises ``ValueError`` with the end of a sentence."""


@dataclass(frozen=True)
class PairRecord:
    """An image or a clip before and after an edit, and whatever else belongs to it. Media are decoded on request.

    Attributes:
        id: of the row, or its target's file where the data give none.
        media: ``source``, ``target`` and others by name, such as ``first_frame``, ``mask`` or ``reference``.
        texts: by name, at least one of ``edited_prompt`` (describes the scene after the edit) and ``instruction``
            (what to change, in the imperative); ``source_prompt`` and others where there are.
        row: index in the data set, from 0.
        task: one of ``TASKS``; empty where the data do not say.
        scores: a filter's scores by name, or None.
    """

    id: str
    media: Mapping[str, Medium] = field(repr=False)
    texts: Mapping[str, str]
    row: int
    task: str = ""
    scores: dict[str, float] | None = None

    @property
    def name(self) -> str:
        """How errors call the record."""
        return f"row {self.row} ({self.id})"

    @property
    def source(self) -> Medium:
        """Before the edit."""
        return self.media["source"]

    @property
    def target(self) -> Medium:
        """After the edit."""
        return self.media["target"]

    @property
    def instruction(self) -> str:
        """What to change; empty if the data do not say."""
        return self.texts.get("instruction", "")

    @property
    def source_prompt(self) -> str:
        """The scene before; empty if the data do not say."""
        return self.texts.get("source_prompt", "")

    @property
    def edited_prompt(self) -> str:
        """The scene after; empty if the data do not say."""
        return self.texts.get("edited_prompt", "")

    @property
    def prompt(self) -> str:
        """The text of training: the edited prompt, or else the instruction."""
        return self.edited_prompt or self.instruction

    @property
    def is_clip(self) -> bool:
        """Whether source and target are clips."""
        return is_clip(self.target)

    def load(self) -> tuple[np.ndarray, np.ndarray]:
        """Decode source and target: uint8 RGB ``[H, W, 3]``, of clips ``[F, H, W, 3]``.

        Raises:
            UserError: one cannot be decoded, or the two differ in size or length; names the row.
        """
        source, target = (self.read(name) for name in SIDES)
        self._check_shapes(source.shape[:3], target.shape[:3])
        return (source, target) if self.is_clip else (source[0], target[0])

    def read(self, name: str, frames: int | None = None) -> np.ndarray:
        """Decode the first ``frames`` frames of a medium, or all: uint8 RGB ``[F, H, W, 3]``.

        Raises:
            UserError: it cannot be decoded or is too short; names the row.
        """
        return read_medium(self.media[name], f"{self.name}: {name}", frames)

    def size(self) -> tuple[int, int]:
        """(height, width) of source and target; see :meth:`shape`."""
        return self.shape()[1:]

    def shape(self) -> Shape:
        """(frames, height, width) of source and target, from their headers.

        Raises:
            UserError: as ``load``, as far as the headers tell.
        """
        source, target = (medium_shape(self.media[name], f"{self.name}: {name}") for name in SIDES)
        self._check_shapes(source, target)
        return source

    def _check_shapes(self, source: Sequence[int], target: Sequence[int]) -> None:
        if is_clip(self.source) != is_clip(self.target):
            kinds = ["a clip" if is_clip(side) else "an image" for side in (self.source, self.target)]
            raise UserError(f"{self.name}: source is {kinds[0]} but target is {kinds[1]}; both must be of one kind")
        if tuple(source[1:]) != tuple(target[1:]):
            sizes = [f"{width}x{height}" for _, height, width in (source, target)]
            raise UserError(
                f"{self.name}: source is {sizes[0]} but target is {sizes[1]} pixels; "
                "both must have one size: crop or resize both in the same way, or remove the row"
            )
        if source[0] != target[0]:
            raise UserError(
                f"{self.name}: source has {source[0]} frames but target has {target[0]}; "
                "both must have one length: cut both in the same way, or remove the row"
            )


class Rows(Sequence[PairRecord]):
    """Rows that are read and validated on indexing; can be pickled.

    Args:
        read: makes the record of a row.
        form: what the data were taken for, for people.
    """

    def __init__(self, length: int, read: Callable[[int], PairRecord], form: str = "") -> None:
        self._length, self._read, self.form = length, read, form

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> PairRecord: ...
    @overload
    def __getitem__(self, index: slice) -> "Rows": ...
    def __getitem__(self, index: int | slice) -> "PairRecord | Rows":
        rows = range(self._length)[index]
        return self.pick(rows) if isinstance(rows, range) else self._read(rows)

    def pick(self, rows: Sequence[int]) -> "Rows":
        """Some of the rows, in the order given."""
        return Rows(len(rows), partial(self._read_from, rows), self.form)

    def _read_from(self, rows: Sequence[int], index: int) -> PairRecord:
        return self._read(rows[index])


def inside(folder: Path, name: Any, absolute: bool = False) -> Path:
    """The file or folder of a name that leads nowhere but into ``folder``.

    Args:
        absolute: whether an absolute name will do, if it is of something in the folder.

    Raises:
        ValueError: it is no name, or leads elsewhere.
    """
    if isinstance(name, list) and len(name) == 1:
        name = name[0]
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"is not a file name; give one relative to the folder {folder}")
    if "://" in name:
        raise ValueError(f"{name!r} is an address, and nothing is fetched; download it into the data folder")
    path = folder / name
    rooted = bool(PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive)
    strange = (rooted and not absolute) or ".." in PureWindowsPath(name).parts
    if strange or not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{name!r} leads out of the data folder; move the file into it and give its relative path")
    return path


def mapped_record(
    fields: Mapping[str, Any], row: int, columns: Mapping[str, str], locate: Locate, named: bool = False
) -> PairRecord:
    """The record of a row of foreign data.

    Args:
        fields: values by column; None and empty texts are missing.
        columns: the column of each of our names; other columns keep their own.
        named: whether ``id`` falls back to the target's file name.

    Raises:
        UserError: a side or all texts are missing, or a medium is not in the data folder; names the row.
    """
    given = {key: value for key, value in fields.items() if value not in (None, "", [])}
    own = {name: given[column] for name, column in columns.items() if column in given}
    taken = set(columns.values())
    others = {key: value for key, value in given.items() if key not in taken and key not in own}
    given_id = {**others, **own}.get("id")
    label = f"row {row}" if given_id is None else f"row {row} ({given_id})"
    for side in SIDES:
        if side not in own:
            raise UserError(f"{label}: lacks {columns[side]}, which is its {side}; fill it in or remove the row")
    media, texts = split(own, others, locate, label)
    if not any(texts.get(name, "").strip() for name in PROMPTS):
        wanted = " or ".join(columns[name] for name in PROMPTS if name in columns)
        raise UserError(f"{label}: has no caption; fill in {wanted} or remove the row")
    target = own["target"][0] if isinstance(own["target"], list) else own["target"]
    fallback = target if named and isinstance(target, str) else str(row)
    return PairRecord(str(fallback if given_id is None else given_id), media, texts, row)


def split(
    own: Mapping[str, Any], others: Mapping[str, Any], locate: Locate, label: str
) -> tuple[dict[str, Medium], dict[str, str]]:
    """Media and texts of a row.

    Args:
        own: by names that are known to be wanted: what looks like a file there must be one.
        others: columns that the data happen to have; a file's name that leads nowhere is a text like others.

    Raises:
        UserError: something wanted is not in the data folder.
    """
    media: dict[str, Medium] = {}
    texts: dict[str, str] = {}
    for name, value in {**others, **own}.items():
        if name in SIDES or (name not in TEXTS and _looks_like_a_medium(value, locate)):
            try:
                media[name] = locate(value)
                continue
            except ValueError as error:
                if name in own:
                    raise UserError(f"{label}: {name} {error}") from error
        if isinstance(value, Mapping):
            value = value.get("path")
        if isinstance(value, str):
            texts[name] = value
    texts.pop("id", None)
    texts.pop("task", None)
    return media, texts


def _looks_like_a_medium(value: Any, locate: Locate) -> bool:
    if isinstance(value, bytes):
        return True
    if isinstance(value, Mapping):
        return bool(value.get("bytes") or value.get("path"))
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or len(value) > NAME_LENGTH or "\n" in value:
        return False
    if is_medium(value):
        return True
    try:
        found = locate(value)
    except ValueError:
        return False
    return isinstance(found, Path) and found.is_dir()
