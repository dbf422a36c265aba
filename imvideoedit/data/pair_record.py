"""A training pair with its media and texts; ``records`` opens data sets of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import overload

import numpy as np

from imvideoedit.common.errors import UserError
from imvideoedit.data.media import Medium, Shape, is_clip, medium_shape, read_medium

SIDES = ("source", "target")
IMAGE, VIDEO, PLAIN = KINDS = ("image", "video", "plain")
PROMPTS = ("edited_prompt", "instruction")  # the first that there is, is the text of training


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
    def instructed(self) -> "PairRecord":
        """This record with the instruction as the text of training, where it has one."""
        if not self.instruction:
            return self
        return replace(self, texts={name: text for name, text in self.texts.items() if name != "edited_prompt"})

    @property
    def kind(self) -> str:
        """One of ``KINDS``: an image pair, a pair of clips, or one clip as source and target."""
        if not self.is_clip:
            return IMAGE
        return PLAIN if self.source == self.target else VIDEO

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

    def each(self, change: Callable[[PairRecord], PairRecord]) -> "Rows":
        """All rows, each changed."""
        return Rows(len(self), partial(self._changed, change), self.form)

    def _changed(self, change: Callable[[PairRecord], PairRecord], index: int) -> PairRecord:
        return change(self._read(index))

    def _read_from(self, rows: Sequence[int], index: int) -> PairRecord:
        return self._read(rows[index])
