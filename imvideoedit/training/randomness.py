"""The states of all processes' random generators, for checkpoints."""

import random
from typing import Any

import numpy as np
import torch
import torch.distributed


def random_states() -> list[dict[str, Any]]:
    """States by rank, as tensors and plain numbers; a collective operation."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    assert kind == "MT19937"
    own = {
        "python": [version, list(words), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [own]
    states: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(states, own)
    return states


def restore_random_states(states: list[dict[str, Any]]) -> None:
    """Restore this process's generators; a process that the checkpoint does not know keeps its own states."""
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    if rank >= len(states):
        return
    own = states[rank]
    version, words, gauss = own["python"]
    random.setstate((version, tuple(words), gauss))
    keys, position, has_gauss, cached = own["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(own["torch"].cpu())
    if own["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(own["cuda"].cpu())
