"""Costs of a computation: seconds, FLOPs, and bytes stored for the backward pass."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from imvideoedit.common.machine import fastest


@dataclass(frozen=True)
class Cost:
    """Costs of one computation.

    Attributes:
        seconds: of the fastest of several runs.
        flops: of matrix multiplications and attention.
        stored: bytes saved for the backward pass, each storage once.
    """

    seconds: float
    flops: float
    stored: int


def cost(compute: Callable[[], Any], repeats: int = 3) -> Cost:
    """Time a computation over ``repeats`` runs, after one run that counts FLOPs and bytes."""
    stored: dict[int, int] = {}

    def save(tensor: Tensor) -> Tensor:
        stored[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    counter = FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)
    with counter, torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        compute()
    return Cost(fastest(compute, repeats), float(counter.get_total_flops()), sum(stored.values()))


def _forward(query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **options: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _backward(
    gradient: Any, query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **options: Any
) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


# torch counts attention kernels of GPUs only.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _forward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward,
}
