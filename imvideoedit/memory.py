"""What fits into this machine."""

from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves


def free_bytes(device: torch.device) -> int:
    """Memory of a device that nobody uses."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def bytes_in(tree: Any) -> int:
    """Of all tensors in nested dicts, lists and tuples."""
    return sum(leaf.nbytes for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
