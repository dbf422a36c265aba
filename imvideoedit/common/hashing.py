"""Hashes that identify sets of tensors and folders of weights."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

FULLY_READ = 64 * 2**20  # bytes of the largest file that is read completely
BLOCK, BLOCKS = 2**16, 256  # bytes of a block, and blocks of a larger file


def hash_tensors(tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> str:
    """16 hex digits of SHA-256 over names, shapes and values in the order of the names, cast to ``dtype`` if given."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        if tensor.is_meta:
            raise ValueError(f"{name} is on the meta device and has no values")
        values = tensor.to("cpu", dtype or tensor.dtype).contiguous()
        digest.update(f"{name} {list(values.shape)} {values.dtype}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def fingerprint(folder: Path | str) -> str:
    """16 hex digits that name the files of a folder and its subfolders by their names and contents; or a single file.

    Of a file above ``FULLY_READ`` bytes only its size and evenly spread blocks count: other weights differ in nearly
    all of their blocks, and a text encoder of many gigabytes is not read twice.
    """
    digest = hashlib.sha256()
    files = [Path(folder)] if Path(folder).is_file() else Path(folder).rglob("*")
    for path in sorted(path for path in files if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)} {size}\n".encode())
        with path.open("rb") as file:
            for start in range(0, size, BLOCK if size <= FULLY_READ else max(size // BLOCKS, BLOCK)):
                file.seek(start)
                digest.update(file.read(BLOCK))
    return digest.hexdigest()[:16]
