"""A LoRA file as changes of a transformer's weights.

What would change the meaning of the rest if it were left out is refused: half a pair, a DoRA's magnitudes, formulas of
other adapters. A tensor of no such kind is told apart as unknown.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from imvideoedit.common.errors import UserError
from imvideoedit.common.hashing import hash_tensors
from imvideoedit.common.tensor_file import TensorFile
from imvideoedit.editing.lora_keys import Part, split
from imvideoedit.editing.lora_scale import Scale, read_scale

TABLE = "scale_shift_table"  # a parameter of its own, not a module's weight


@dataclass(frozen=True)
class Change:
    """What is added to a parameter.

    Attributes:
        keys: of its tensors in the file.
        terms: whole tensors, or pairs (B, A) whose product counts; float32, with a factor each.
        shape: of the parameter it fits.
    """

    keys: tuple[str, ...]
    terms: tuple[tuple[float, tuple[Tensor, ...]], ...]
    shape: tuple[int, ...]

    @property
    def bound(self) -> float:
        """No value of it is larger; infinite where a factor is more than float32 holds, which makes NaN of zeros."""
        total = 0.0
        for factor, tensors in self.terms:
            if abs(factor) > torch.finfo(torch.float32).max:
                return math.inf
            term = abs(factor)
            for tensor in tensors:
                term *= float(tensor.abs().max())
            total += term * (tensors[0].shape[1] if len(tensors) > 1 else 1)
        return total

    @property
    def is_zero(self) -> bool:
        """Whether it is a difference of zeros, as few-step distillations have them for norms."""
        return not self.bound and all(len(tensors) == 1 for _, tensors in self.terms)

    def value(self) -> Tensor:
        """What is added, float32, of ``shape``."""
        return sum(
            (factor * (tensors[0] if len(tensors) == 1 else tensors[0] @ tensors[1]) for factor, tensors in self.terms),
            torch.zeros(()),
        ).reshape(self.shape)


@dataclass(frozen=True)
class LoraFile:
    """What a file holds.

    Attributes:
        changes: by the parameter's name in diffusers' Wan transformer.
        unknown: keys that are no part of a LoRA.
        count: of all keys.
    """

    changes: dict[str, Change]
    unknown: list[str]
    count: int


def read_lora(path: Path | str) -> LoraFile:
    """The changes that a file makes.

    Raises:
        UserError: missing or damaged, no LoRA, or one of another formula than a product of two or a difference.
    """
    file = TensorFile(path, "LoRA", "copy or export it again")
    found, unknown = split(file.names)
    other = [key for key, (_, part) in found.items() if part is Part.OTHER]
    if other:
        raise UserError(f"{path} has {_some(other)}, which no LoRA of linear maps has; export it as a plain LoRA")
    if not any(part in (Part.DOWN, Part.UP, Part.WEIGHT, Part.BIAS) for _, part in found.values()):
        raise UserError(f"{path} is no LoRA of a Wan transformer (it has no pair lora_A, lora_B); take one that is")
    dora = [key for key, (_, part) in found.items() if part is Part.MAGNITUDE]
    if dora:
        raise UserError(f"{path} is a DoRA ({_some(dora)}), which only its trainer applies; merge it into a plain LoRA")
    scale = read_scale(path, file.metadata)
    if scale.unused:
        logging.getLogger(__name__).warning("not used of %s: %s", path, ", ".join(scale.unused)[:300])
    changes: dict[str, Change] = {}
    for place, keys in _by_place(found, path).items():
        parts = {part: _floats(file, key, part) for part, key in keys.items()}
        changes.update(_of_place(place, keys, parts, scale, path))
    return LoraFile(changes, unknown, len(file.names))


def lora_hash(path: Path | str) -> str:
    """A text that names what a file adds: the hash of its tensors, and the scale in its metadata where they say one.

    Raises:
        UserError: missing or damaged.
    """
    file = TensorFile(path, "LoRA", "copy or export it again")
    said = read_scale(path, file.metadata).text
    return hash_tensors(file.tensors()) + (f" at {said}" if said else "")


def _by_place(found: Mapping[str, tuple[str, Part]], path: Path | str) -> dict[str, dict[Part, str]]:
    """The keys of each place by their part."""
    places: dict[str, dict[Part, str]] = {}
    for key, (place, part) in found.items():
        keys = places.setdefault(place, {})
        if part in keys:
            raise UserError(f"{path} has both {keys[part]} and {key}; remove one of them")
        keys[part] = key
    for keys in places.values():
        lone = {Part.DOWN: "lora_B", Part.UP: "lora_A", Part.UP_BIAS: "pair", Part.ALPHA: "pair"}
        pair = {Part.DOWN, Part.UP} <= keys.keys()
        for part, other in lone.items():
            if part in keys and not pair:
                raise UserError(f"{path} has {keys[part]} without its {other}; copy or export it again")
    return places


def _floats(file: TensorFile, key: str, part: Part) -> Tensor:
    tensor = file.tensor(key)
    whole = part is Part.ALPHA and not tensor.is_complex() and tensor.dtype != torch.bool
    if not tensor.is_floating_point() and not whole:
        raise UserError(f"{file.path} holds {tensor.dtype} at {key}, no floats; export it in bfloat16 or float32")
    if not tensor.numel() or (part is Part.ALPHA and tensor.numel() > 1):
        raise UserError(f"{file.path} has the shape {list(tensor.shape)} at {key}; copy or export it again")
    return tensor.float()


def _of_place(
    place: str, keys: Mapping[Part, str], parts: Mapping[Part, Tensor], scale: Scale, path: Path | str
) -> Iterator[tuple[str, Change]]:
    """The changes of a module's weight and bias, by the parameter's name."""
    weight: list[Change] = []
    bias: list[Change] = []
    factor = 1.0
    if Part.DOWN in parts:
        down, up = parts[Part.DOWN], parts[Part.UP]
        if down.ndim < 2 or up.ndim < 2 or up.shape[1] != len(down) or set(up.shape[2:]) - {1}:
            shapes = f"{list(up.shape)} and {list(down.shape)}"
            raise UserError(f"{path} has no pair at {place}: lora_B and lora_A are {shapes}; copy or export it again")
        own = parts.get(Part.ALPHA)
        factor = scale.of(place, len(down), None if own is None else float(own), path)
        shape = len(up), *down.shape[1:]
        own_keys = tuple(keys[part] for part in (Part.DOWN, Part.UP, Part.ALPHA) if part in keys)
        weight.append(Change(own_keys, ((factor, (up.flatten(1), down.flatten(1))),), shape))
    # PEFT's bias is part of B and scaled with it; differences are added as they are.
    for changes, part, strength in ((weight, Part.WEIGHT, 1.0), (bias, Part.UP_BIAS, factor), (bias, Part.BIAS, 1.0)):
        if part in parts:
            changes.append(Change((keys[part],), ((strength, (parts[part],)),), tuple(parts[part].shape)))
    for end, changes in ((".weight", weight), (".bias", bias)):
        if len({change.shape for change in changes}) > 1:
            raise UserError(f"{path} has two shapes for the {end[1:]} of {place}; copy or export it again")
        if changes:
            terms = tuple(term for change in changes for term in change.terms)
            joined = Change(tuple(key for change in changes for key in change.keys), terms, changes[0].shape)
            yield place + ("" if place.endswith(TABLE) and end == ".weight" else end), joined


def _some(keys: list[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{len(keys)} keys such as {keys[0]}"
