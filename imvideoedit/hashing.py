"""Names for sets of tensors."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


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
