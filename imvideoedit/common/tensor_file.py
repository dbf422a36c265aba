"""The one reader of safetensors that others may have written, such as adapters, LoRAs, caches, states of a run."""

import io
import math
import os.path
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from imvideoedit.common.errors import UserError


class TensorFile:
    """An open file, whose tensors are read when they are asked for.

    Args:
        what: it is, and ``fix``, how to get a good one, for errors.

    Attributes:
        metadata: texts by name.
        names: of the tensors, sorted.

    Raises:
        UserError: missing, or no complete safetensors file.
    """

    def __init__(self, path: Path | str, what: str = "file", fix: str = "copy or make it again") -> None:
        self.path, self._fix = path, fix
        if not os.path.isfile(path):  # unlike pathlib, takes names of any length
            raise UserError(f"there is no {what} at {path}; check the path")
        try:
            self._file: Any = safe_open(path, framework="pt")
            self.metadata: dict[str, str] = self._file.metadata() or {}
            self.names: list[str] = sorted(self._file.keys())
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is not a complete safetensors file ({_reason(error)}); {fix}") from error
        # Names stand in errors and logs, where line breaks and a terminal's control codes have no place.
        odd = next((name for name in (*self.names, *self.metadata) if not name.isprintable()), None)
        if odd is not None:
            raise UserError(f"{path} has a name with control characters, {ascii(odd)[:80]}; {fix}")

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, which is not read."""
        try:
            return tuple(self._file.get_slice(name).get_shape())
        except (SafetensorError, OSError) as error:
            raise UserError(f"{self.path} cannot be read at {name} ({_reason(error)}); {self._fix}") from error

    def tensor(self, name: str) -> Tensor:
        """A tensor as stored, on the CPU.

        Raises:
            UserError: there is none of that name, of a type that torch can compute with, or it is not finite.
        """
        try:
            tensor = self._file.get_tensor(name)
            finite = is_finite(tensor)
        # Of types that this torch lacks or cannot convert, as of four bits, each version has errors of its own.
        except (SafetensorError, OSError, RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{self.path} cannot be read at {name} ({_reason(error)}); {self._fix}") from error
        if not finite:
            raise UserError(f"{self.path} holds NaN or infinite values at {name}; {self._fix}")
        return tensor

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, see :meth:`tensor`."""
        return {name: self.tensor(name) for name in self.names}


def is_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    if not tensor.numel() or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    if tensor.is_complex():
        return bool(torch.isfinite(tensor).all())
    wide = tensor.float() if tensor.itemsize == 1 else tensor
    return all(map(math.isfinite, torch.stack(torch.aminmax(wide)).tolist()))  # both are NaN where a value is


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The first name whose tensor holds NaN or infinite values."""
    return next((name for name in sorted(tensors) if not is_finite(tensors[name])), None)


def misfit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """The ways in which two states differ, each with its count and first example; empty when they fit."""
    reshaped = {name for name in expected.keys() & found.keys() if expected[name].shape != found[name].shape}
    ways = {
        "lacking": expected.keys() - found.keys(),
        "unknown": found.keys() - expected.keys(),
        "of another shape": reshaped,
    }
    return ", ".join(f"{len(names)} tensors {way} (as {min(names)})" for way, names in ways.items() if names)


def read_pickled(path: Path, fix: str) -> dict[str, Tensor]:
    """The tensors by name of a file by ``torch.save``, on the CPU; no code in it is run.

    Raises:
        UserError: it is missing or damaged, holds other objects than tensors by name, or they are not finite.
    """
    try:
        held = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    except Exception as error:  # of pickle, zip or torch, which name no common one
        raise UserError(f"{path} is no checkpoint of tensors ({_reason(error)}); {fix}") from error
    for wrapper in ("params", "state_dict"):
        held = held.get(wrapper, held) if isinstance(held, Mapping) else held
    if not isinstance(held, Mapping) or not all(isinstance(tensor, Tensor) for tensor in held.values()):
        raise UserError(f"{path} is no checkpoint of tensors (it holds other objects); {fix}")
    state = {str(name).removeprefix("module."): tensor for name, tensor in held.items()}
    odd = first_not_finite(state)
    if odd is not None:
        raise UserError(f"{path} holds NaN or infinite values at {odd}; {fix}")
    return state


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
