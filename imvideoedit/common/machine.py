"""This machine: seconds of a run, peak memory, rate of matrix multiplications, and whether memory ran out."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SIDE = 1536  # of the matrices that a CPU's rate is measured with
GPU_SIDE = 8192  # a smaller product does not fill a large GPU


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
    """Peak resident memory of this process."""
    # Not getrusage, whose maximum a child process inherits from its parent.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of this machine's matrix multiplications."""
    side = GPU_SIDE if device.type == "cuda" else SIDE
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    left @ right
    return 2 * side**3 / fastest(lambda: left @ right, repeats=9)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the CPU ran out of memory."""
    # torch's CPU allocator raises a plain RuntimeError, which only its message tells from others.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
