"""A LoRA file as changes of a transformer's weights: every tensor in it is used, or the file is refused."""

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
        key: of a tensor in the file, for errors.
        terms: whole tensors, or pairs (B, A) whose product counts; float32, with a factor each.
        shape: of the parameter it fits.
    """

    key: str
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

    def value(self) -> Tensor:
        """What is added, float32, of ``shape``."""
        return sum(
            (factor * (tensors[0] if len(tensors) == 1 else tensors[0] @ tensors[1]) for factor, tensors in self.terms),
            torch.zeros(()),
        ).reshape(self.shape)


def read_changes(path: Path | str) -> dict[str, Change]:
    """The changes that a file makes, by the parameter's name in diffusers' Wan transformer.

    Differences of zeros change nothing, as few-step distillations have them for norms, and are left out.

    Raises:
        UserError: missing or damaged, no LoRA, or one that is used in part only.
    """
    file = TensorFile(path, "LoRA", "copy or export it again")
    found, unknown = split(file.names)
    if not any(part in (Part.DOWN, Part.UP, Part.WEIGHT) for _, part in found.values()):
        raise UserError(f"{path} is no LoRA of a Wan transformer (it has no pair lora_A, lora_B); take one that is")
    if unknown:
        raise UserError(f"{path} has {_some(unknown)}, which no LoRA of linear maps has; export it as a plain LoRA")
    dora = [key for key, (_, part) in found.items() if part is Part.MAGNITUDE]
    if dora:
        raise UserError(f"{path} is a DoRA ({_some(dora)}), which only its trainer applies; merge it into a plain LoRA")
    scale = read_scale(path, file.metadata)
    if scale.unused:
        logging.getLogger(__name__).warning("not used of %s: %s", path, ", ".join(scale.unused)[:300])
    changes: dict[str, Change] = {}
    for place, keys in _by_place(found, path).items():
        parts = {part: _floats(file, key, part) for part, key in keys.items()}
        for name, change in _of_place(place, keys, parts, scale, path):
            if change.bound or any(len(tensors) > 1 for _, tensors in change.terms):
                changes[name] = change
    return changes


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
        weight.append(Change(keys[Part.DOWN], ((factor, (up.flatten(1), down.flatten(1))),), shape))
    # PEFT's bias is part of B and scaled with it; differences are added as they are.
    for changes, part, strength in ((weight, Part.WEIGHT, 1.0), (bias, Part.UP_BIAS, factor), (bias, Part.BIAS, 1.0)):
        if part in parts:
            changes.append(Change(keys[part], ((strength, (parts[part],)),), tuple(parts[part].shape)))
    for end, changes in ((".weight", weight), (".bias", bias)):
        if len({change.shape for change in changes}) > 1:
            raise UserError(f"{path} has two shapes for the {end[1:]} of {place}; copy or export it again")
        if changes:
            terms = tuple(term for change in changes for term in change.terms)
            yield place + ("" if place.endswith(TABLE) else end), Change(changes[0].key, terms, changes[0].shape)


def _some(keys: list[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{len(keys)} keys such as {keys[0]}"
