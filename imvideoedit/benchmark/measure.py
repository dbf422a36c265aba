"""What a computation costs: seconds, matrix products, and what it stores for the backward pass."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

SIDE = 1536  # of the matrices that tell the machine's rate


@dataclass(frozen=True)
class Cost:
    """Of one computation.

    Attributes:
        seconds: the least of several runs.
        products: multiplications and additions in matrix products and attention (FLOPs).
        stored: bytes kept for the backward pass, each storage once.
    """

    seconds: float
    products: float
    stored: int


def cost(compute: Callable[[], Any], repeats: int = 3) -> Cost:
    """Run a computation ``repeats`` times, after one that counts."""
    stored: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        stored[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    counter = FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        compute()
    return Cost(fastest(compute, repeats), float(counter.get_total_flops()), sum(stored.values()))


def fastest(compute: Callable[[], Any], repeats: int = 3) -> float:
    """Seconds of the fastest of ``repeats`` runs."""
    times = []
    for _ in range(repeats):
        _wait()
        began = time.perf_counter()
        compute()
        _wait()
        times.append(time.perf_counter() - began)
    return min(times)


def peak_bytes() -> int:
    """The most memory that this process ever had."""
    # Not getrusage, whose maximum a child process inherits from its parent.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of this machine's matrix products."""
    left, right = (torch.randn(SIDE, SIDE, device=device).to(dtype) for _ in range(2))
    left @ right
    return 2 * SIDE**3 / fastest(lambda: left @ right, repeats=9)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _forward(query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **options: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _backward(
    gradient: Any, query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **options: Any
) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


# torch counts the kernels of GPUs only.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _forward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward,
}
