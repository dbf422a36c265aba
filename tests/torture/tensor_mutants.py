"""Damage to safetensors: names, types, shapes, values, metadata, the header's entries, bytes."""

import json
import math
import random
import struct
from typing import Any

import torch
from safetensors.torch import load, save

from tests.torture.mutants import WORDS, damaged_bytes, damaged_json, damaged_text

DTYPES = [getattr(torch, name) for name in (
    "bool", "uint8", "int8", "int16", "int64", "uint16", "uint32", "float16", "bfloat16", "float64", "float8_e4m3fn",
    "float8_e5m2", "float8_e8m0fnu", "complex64",
)]  # fmt: skip
SHAPES = [(), (0,), (3,), (24,), (0, 24), (24, 0), (4, 23), (25, 4), (1, 4, 24), (4, 24, 1, 1, 1), (2, 2, 2, 2, 2)]
SAFETENSORS_TYPES = ["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "I16", "U16", "F16", "BF16",
                     "I32", "U32", "F32", "C64", "F64", "I64", "U64", "X9", "", None, 3]  # fmt: skip


def damaged_tensors(state: dict[str, torch.Tensor], rng: random.Random) -> dict[str, torch.Tensor]:
    """One to three changes of names, types, shapes and values."""
    for _ in range(rng.randint(1, 3)):
        if not state:
            break
        key = rng.choice(sorted(state))
        tensor = state.pop(key)
        kind = rng.randrange(6)
        if kind == 0:
            continue
        if kind == 1:
            parts = key.split(".")
            parts[rng.randrange(len(parts))] = rng.choice(WORDS)
            key = ".".join(parts)
        elif kind == 2 and key:
            key = key[: rng.randrange(len(key))] + rng.choice(WORDS) + key[rng.randrange(len(key)) :]
        elif kind == 3:
            tensor = (tensor.float().abs() * 3).to(rng.choice(DTYPES))
        elif kind == 4:
            tensor = torch.ones(rng.choice(SHAPES))
        else:
            tensor = tensor.float() * rng.choice([math.nan, math.inf, 0.0, 1e30, 1e-40])
        state[key] = tensor.clone().contiguous()
    return state


def header_of(data: bytes) -> dict[str, Any]:
    """The header of safetensors, with ``__metadata__``.

    Raises:
        ValueError: there is none.
    """
    (length,) = struct.unpack_from("<Q", data) if len(data) >= 8 else (0,)
    header = json.loads(data[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("no header")
    return header


def with_header(data: bytes, header: Any) -> bytes:
    """The same tensors under another header."""
    (length,) = struct.unpack_from("<Q", data)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def damaged_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Tensors, metadata, the header's own entries, or bytes."""
    try:
        header = header_of(data)
        kind = rng.randrange(10)
        if kind < 4:
            metadata = header.get("__metadata__")
            state = damaged_tensors(dict(load(data)), rng)
            return save(state, metadata)
        if kind < 6:
            return damaged_metadata(data, rng)
        if kind < 9:
            return with_header(data, _damaged_header(header, rng))
    except Exception:  # damaged before, in whatever way
        pass
    return damaged_bytes(data, rng)


def _damaged_header(header: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    names = sorted(name for name in header if name != "__metadata__")
    if not names or rng.random() < 0.2:
        return damaged_json(header, rng)
    entry = header[rng.choice(names)]
    match rng.randrange(4):
        case 0:
            entry["dtype"] = rng.choice(SAFETENSORS_TYPES)
        case 1:
            entry["shape"] = rng.choice([*map(list, SHAPES), [-1], [2**63], [2**32, 2**32, 0], "x", None, [1.5]])
        case 2:
            entry["data_offsets"] = rng.choice([[0, 0], [0, 2**63], [-1, 4], [8, 4], [], [0], None, [0, 1, 2]])
        case _:
            header[rng.choice(WORDS)] = entry
    return header


def damaged_metadata(data: bytes, rng: random.Random) -> bytes:
    """The JSON in an entry of the metadata, or the entry itself."""
    try:
        header = header_of(data)
        metadata = header.get("__metadata__")
        if not metadata:
            return damaged_safetensors(data, rng)
        entry = rng.choice(sorted(metadata))
        match rng.randrange(12):
            case 0:
                del metadata[entry]
            case 1:
                metadata[rng.choice(WORDS)] = metadata.pop(entry)
            case _:
                metadata[entry] = damaged_text(metadata[entry], rng)
        return with_header(data, header)
    except Exception:  # damaged before
        return damaged_bytes(data, rng)
