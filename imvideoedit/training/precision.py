"""The floating-point precision that training runs in."""

from typing import Literal

import torch
from lightning import Trainer
from lightning.pytorch.plugins import HalfPrecision

from imvideoedit.common.errors import UserError

Precision = Literal["32-true", "bf16-mixed"]


def fast_precision() -> Precision:
    """bfloat16 autocast where the GPU or the CPU has instructions for it, else float32."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = any(getattr(torch.cpu, check, bool)() for check in checks)
    return "bf16-mixed" if native else "32-true"


def check_precision(trainer: Trainer) -> None:
    """Refuse to train weights that are themselves in half precision, in which small updates vanish.

    Raises:
        UserError: ``trainer.precision`` is ``bf16-true`` or ``16-true``, and no strategy keeps a float32 copy.
    """
    if isinstance(trainer.precision_plugin, HalfPrecision):
        given = trainer.precision
        raise UserError(f"trainer.precision={given} would train half-precision weights; use bf16-mixed or 32-true")
