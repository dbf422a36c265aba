"""Linear maps whose weights are in few bits: their weights in full, and copies that are plain linear maps."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

BITSANDBYTES = ("Params4bit", "Int8Params")  # its classes of weights, by name: the package is optional


def is_packed(weight: Tensor) -> bool:
    """Whether a weight is in few bits, so that its own values are not those that count."""
    named = type(weight).__name__ in BITSANDBYTES
    return named or hasattr(weight, "quant_shape") or is_traceable_wrapper_subclass(weight)


def stored_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor as it is held, in few bits too, with the scales that are part of it."""
    if is_traceable_wrapper_subclass(tensor):
        inner = (getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
        return sum(stored_bytes(each) for each in inner if each is not None)
    return tensor.nbytes


def full_weight(linear: nn.Module) -> Tensor:
    """The weight ``[out, in]`` of a linear map in floating point, as it is multiplied with; a plain one as it is."""
    own: Any = linear
    weight: Any = own.weight
    if hasattr(weight, "quant_shape"):  # GGUF
        from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

        return dequantize_gguf_tensor(weight)
    if type(weight).__name__ in BITSANDBYTES:
        from diffusers.quantizers.bitsandbytes.utils import dequantize_bnb_weight

        return dequantize_bnb_weight(weight, getattr(own, "state", None))
    torchao = is_traceable_wrapper_subclass(weight)
    return own.weight.dequantize() if torchao else weight.detach()


def trained_copy(linear: Any, dtype: torch.dtype) -> nn.Linear:
    """A plain linear map with the same weights in full, in ``dtype``, to train."""
    how: dict[str, Any] = {"bias": linear.bias is not None, "device": linear.weight.device, "dtype": dtype}
    copied: Any = skip_init(nn.Linear, linear.in_features, linear.out_features, **how)  # which draws no random numbers
    with torch.no_grad():
        copied.weight.copy_(full_weight(linear))
        if linear.bias is not None:
            copied.bias.copy_(linear.bias)
    return copied
