"""Training examples as pixels and texts: what a record gives to a method's inputs, cut to its bucket.

An example holds ``source``, ``target`` and inputs by name, uint8 ``[F, H, W, 3]`` (an image has one frame), masks uint8
``[F, H, W]`` (255 where they are white; a still mask has one frame), texts, and the text of training as ``prompt``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from imvideoedit.common.errors import UserError
from imvideoedit.data.media import Medium, Shape, is_clip, read_mask
from imvideoedit.data.pair_record import PLAIN, SIDES, PairRecord
from imvideoedit.data.sizes import Bucket, Size, bucket_length, fit, fit_mask, nearest_bucket
from imvideoedit.edit_batch import Input

Example = dict[str, Any]
Transform = Callable[[Example, np.random.Generator], Example]
"""As ``Method.transform``."""


def inputs_of(record: PairRecord, inputs: Sequence[Input]) -> tuple[Input, ...]:
    """Those of a method's inputs that a record can give.

    Raises:
        UserError: it lacks a required one, or has something of another kind under its name; names the row.
    """
    found = []
    for each in inputs:
        held, other = (record.media, record.texts) if each.kind != "text" else (record.texts, record.media)
        if each.name in held or each.from_target:
            found.append(each)
        elif each.name in other:
            kind = "a text" if each.kind == "text" else "an image or clip in the data's folder"
            raise UserError(f"{record.name}: its {each.name} is not {kind}, as the method needs; correct or remove it")
        elif each.required:
            raise UserError(
                f"{record.name}: has no {each.name} ({each.kind}), which the method needs; add it to the data, or name "
                f"its column by data.columns={{{each.name}: COLUMN}}"
            )
    return tuple(found)


def bucket_of(record: PairRecord, sizes: Sequence[Size], lengths: Sequence[int], inputs: Sequence[Input]) -> Bucket:
    """The bucket of a record: only what shares one can be stacked.

    Raises:
        UserError: the record is bad, or none suits it; names the row.
    """
    frames, height, width = record.shape()
    length = bucket_length(frames, record.is_clip, lengths, record.name)
    names = tuple(sorted(each.name for each in inputs_of(record, inputs)))
    return Bucket(length, *nearest_bucket((height, width), sizes), names)


@dataclass(frozen=True)
class Reader:
    """Reads examples of a record in its bucket.

    Args:
        inputs: those that the record gives, see :func:`inputs_of`.
        ahead: whether plain clips have the frames behind, see ``Method.transform``.
    """

    record: PairRecord
    bucket: Bucket
    inputs: tuple[Input, ...]
    ahead: bool = False

    def example(self) -> Example:
        """All of it, decoded.

        Raises:
            UserError: something cannot be decoded or does not fit; names the row.
        """
        values: Example = {name: self.video(name) for name in (*SIDES, *self.media())}
        if self.ahead and self.record.kind == PLAIN:
            values["ahead"] = self.frames_ahead()
        return values | self.texts()

    def frames_ahead(self) -> np.ndarray:
        """The source's frames behind the bucket's, up to as many as the bucket has but one."""
        frames = self.bucket.frames
        seen = self.record.read("source", min(2 * frames - 1, self.record.shape()[0]))
        height, width = self.bucket.size
        fitted = [fit(frame, (height, width)) for frame in seen[frames:]]
        return np.array(fitted, np.uint8).reshape(-1, height, width, 3)

    def texts(self) -> dict[str, str]:
        """The text of training as ``prompt``, and texts that are inputs."""
        given = {each.name: self.record.texts[each.name] for each in self.inputs if each.kind == "text"}
        return {"prompt": self.record.prompt, **given}

    def media(self) -> dict[str, Input]:
        """Inputs that are no texts."""
        return {each.name: each for each in self.inputs if each.kind != "text"}

    def medium(self, name: str) -> Medium:
        """What a name is read from: the target where an input that may come from it is not given."""
        return self.record.media.get(name, self.record.target)

    def shape(self, name: str) -> Shape:
        """(frames, height, width) that it is cut to; an image, and a still mask, has one frame."""
        each = self.media().get(name)
        still = each is not None and (each.kind == "image" or (each.kind == "mask" and not self.is_clip(name)))
        return (1 if still else self.bucket.frames, *self.bucket.size)

    def is_clip(self, name: str) -> bool:
        """Whether it is read from a clip."""
        return is_clip(self.medium(name))

    def video(self, name: str) -> np.ndarray:
        """One medium: uint8 ``[F, H, W, 3]``, or a mask ``[F, H, W]``."""
        label, frames = f"{self.record.name}: {name}", self.shape(name)[0]
        each = self.media().get(name)
        if each is not None and each.kind == "mask":
            source, size = self.record.size(), self.bucket.size
            mask_FHW = read_mask(self.medium(name), label, frames)
            return np.stack([fit_mask(mask_HW, source, size, label) for mask_HW in mask_FHW])
        found = name if name in self.record.media else "target"
        return np.stack([fit(frame, self.bucket.size) for frame in self.record.read(found, frames)])

    def place(self, name: str) -> tuple[int, ...]:
        """What decides its pixels besides its bytes."""
        each = self.media().get(name)
        shape = self.shape(name) if self.is_clip(name) else self.bucket.size
        return (*shape, *self.record.size()) if each is not None and each.kind == "mask" else shape


def changed(example: Example, transform: Transform, seed: int, row: int, variant: int) -> Example:
    """What a method's transform makes of an example; random in the seed, the row and the variant alone.

    Raises:
        TypeError: it returns what is neither a text nor uint8.
    """
    found = transform(example, np.random.default_rng((seed, row, variant)))
    for name, value in found.items():
        if not isinstance(value, str) and not (isinstance(value, np.ndarray) and value.dtype == np.uint8):
            raise TypeError(f"transform gave {name} as {type(value).__name__}; media are uint8 arrays, texts are str")
    return found


def encoder_of(name: str, value: Any, inputs: Mapping[str, Input]) -> str:
    """Which encoder takes a value of an example: ``vae``, ``raw`` or ``text``; undeclared media go to the ``vae``."""
    if isinstance(value, str):
        return "text"
    if name in inputs and inputs[name].kind != "text":
        return inputs[name].encoder
    return "raw" if value.ndim == 3 else "vae"
