"""A frozen transformer whose linear maps are in few bits, by diffusers' own quantizers; and the bytes it takes.

``nf4`` and ``int8`` are bitsandbytes', on a GPU alone; ``int8_weight_only`` and ``fp8_weight_only`` are torchao's. GGUF
files bring their own. What is trained, and all that an adapter inherits in full, stays in floating point.
"""

from typing import Any

import torch
from torch import nn

from imvideoedit.common.errors import UserError
from imvideoedit.wan.quantizations import BITS, GGUF, KEPT, ON_DEVICE, QUANTIZATIONS, SCALED_ROWS, require_package


def quantization_config(name: str, dtype: torch.dtype, device: torch.device) -> Any:
    """diffusers' config of a quantization.

    Args:
        name: one of ``QUANTIZATIONS``.
        dtype: that is computed in.
        device: of the computation.

    Raises:
        UserError: there is none of that name, its package is missing, or it needs a GPU.
    """
    if name not in QUANTIZATIONS:
        raise UserError(f"backbone.quantization is {name!r}; choose {', '.join(QUANTIZATIONS)}, or leave it out")
    require_package(name)
    if name not in ON_DEVICE:
        from diffusers import TorchAoConfig
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

        kind: Any = Int8WeightOnlyConfig() if name == "int8_weight_only" else Float8WeightOnlyConfig()
        return TorchAoConfig(kind, modules_to_not_convert=list(KEPT))
    if device.type != "cuda":
        raise UserError(
            f"backbone.quantization={name} is loaded on a GPU alone; take int8_weight_only, or a file of GGUF"
        )
    from diffusers import BitsAndBytesConfig

    if name == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(KEPT))
    four = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    return BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=list(KEPT), **four)


def gguf_config(dtype: torch.dtype) -> Any:
    """diffusers' config of a GGUF file; arguments and errors as :func:`quantization_config`."""
    require_package(GGUF)
    from diffusers import GGUFQuantizationConfig

    return GGUFQuantizationConfig(compute_dtype=dtype)


def is_quantized(transformer: nn.Module) -> bool:
    """Whether its linear maps are in few bits."""
    return getattr(transformer, "hf_quantizer", None) is not None


def goes_in_blocks(transformer: nn.Module) -> bool:
    """Whether its blocks can come to a device one by one: the scales of bitsandbytes' weights would stay behind."""
    own: Any = transformer
    return not (getattr(own, "is_loaded_in_4bit", False) or getattr(own, "is_loaded_in_8bit", False))


def refuse_quantized(transformer: nn.Module, what: str) -> None:
    """Refuse what changes the weights of a transformer.

    Raises:
        UserError: they are in few bits; begins with ``what``.
    """
    if is_quantized(transformer):
        raise UserError(f"{what} the backbone's weights, which are quantised here; take it without quantization")


def weight_bytes(module: nn.Module, quantization: str | None = None, wide: int = 2) -> float:
    """Bytes of a transformer's weights, or of a part's, as they are with a quantization; from shapes alone.

    Args:
        module: not quantised; may be on the meta device.
        quantization: one of ``BITS``; None for none.
        wide: bytes of a weight that is not quantised.

    Raises:
        UserError: there is no such quantization.
    """
    if quantization is not None and quantization not in BITS:
        raise UserError(f"there is no quantization {quantization!r}; choose {', '.join(BITS)}")
    total = 0.0
    for name, part in module.named_modules():
        kept = quantization is None or any(name == each or name.startswith(f"{each}.") for each in KEPT)
        for own, parameter in part.named_parameters(recurse=False):
            if kept or own != "weight" or not isinstance(part, nn.Linear):
                total += wide * parameter.numel()
            else:
                assert quantization is not None
                scales = SCALED_ROWS.get(quantization, 0) * len(parameter)
                total += BITS[quantization] / 8 * parameter.numel() + scales
    return total
