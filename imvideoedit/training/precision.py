"""The floating-point precision that training runs in."""

from typing import Literal

import torch

Precision = Literal["32-true", "bf16-mixed"]


def fast_precision() -> Precision:
    """bfloat16 autocast where the GPU or the CPU has instructions for it, else float32."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = any(getattr(torch.cpu, check, bool)() for check in checks)
    return "bf16-mixed" if native else "32-true"
