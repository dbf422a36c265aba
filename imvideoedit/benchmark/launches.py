"""What a computation asks of a GPU, counted without one: kernel launches, bytes moved and FLOPs.

It runs on meta or fake tensors, which have shapes and no values. An operation counts as one launch unless it is a view
or only allocates; its bytes are those of the tensors it reads and writes. Attention and RMS norms, which torch takes
apart where there is no GPU, count as the fused kernels that a GPU runs in bfloat16.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from typing import Any, Protocol
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

ALLOCATIONS = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "_unsafe_view",
    "promote_types",
}
WRITE_ONLY = {"copy_", "fill_", "zero_"}  # do not read what they change
CHUNK = 320 * 65536  # elements that one launch of torch's optimizers works on


@dataclass(frozen=True)
class Count:
    """Costs of a computation.

    Attributes:
        launches: of kernels and copies.
        bytes: read and written by kernels.
        flops: of products and attention.
        moved: bytes between device and host, in both directions.
    """

    launches: float = 0
    bytes: float = 0
    flops: float = 0
    moved: float = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(*(one + two for one, two in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, factor: float) -> "Count":
        return Count(*(factor * each for each in astuple(self)))


class Meter(Protocol):
    """Adds up costs of what no dispatch shows, such as compiled code."""

    total: Count


def counted(compute: Callable[[], Any], meter: Meter | None = None) -> Count:
    """The costs of ``compute``'s second run, when gradients exist already and are added to.

    Args:
        meter: of compiled code within it.
    """
    with gpu_kernels():
        compute()
        before = Count() if meter is None else meter.total
        with LaunchCounter() as counter:
            compute()
    return counter.total if meter is None else counter.total + meter.total + before * -1


@contextlib.contextmanager
def gpu_kernels() -> Iterator[None]:
    """Inside, attention and RMS norms are one operation each, as on a GPU, for shapes alone."""
    attention = patch.object(functional, "scaled_dot_product_attention", _attention)
    # Replaced, since a mode for torch's functions does not hold where blocks are recomputed.
    with attention, patch.object(functional, "rms_norm", _rms_norm):
        yield


class LaunchCounter(TorchDispatchMode):
    """Adds up what is dispatched within it, in ``total``."""

    def __init__(self) -> None:
        super().__init__()
        self.total = Count()

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Compiled functions run as such within this mode."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func._overloadpacket.__name__
        if func.namespace == "aten" and name not in ALLOCATIONS and not _is_view(func):
            if name == "_to_copy" and args[0].device != out.device:
                self.total += Count(1, moved=_moved(out))
                return out
            read = args[1:] if name in WRITE_ONLY else args
            tensors = [leaf for leaf in tree_leaves((read, kwargs, out)) if isinstance(leaf, Tensor)]
            count = flop_registry.get(func._overloadpacket)
            flops = count(*args, **kwargs, out_val=out) if count else 0
            many = name.startswith(("_foreach", "_fused_adam"))
            launches = -(-sum(tensor.numel() for tensor in args[0]) // CHUNK) if many else 1
            self.total += Count(launches, sum(map(_moved, tensors)), flops)
        return out


def _is_view(func: Any) -> bool:
    return any(result.alias_info and not result.alias_info.is_write for result in func._schema.returns)


def _moved(tensor: Tensor) -> int:
    """Bytes of a tensor; of one that is expanded, those that it has."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Tensor:
    """What a GPU runs for ``scaled_dot_product_attention`` without a mask."""
    device = query.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        query, key, value = (each.to(torch.get_autocast_dtype(device)) for each in (query, key, value))
    return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]


def _rms_norm(x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """What a GPU runs for ``rms_norm``, whose fused kernel needs one dtype."""
    fused = weight is not None and weight.dtype == x.dtype
    return _RMSNorm.apply(x, weight) if fused else torch.rms_norm(x, shape, weight, eps)


class _RMSNorm(torch.autograd.Function):
    """Launches and bytes of torch's fused RMS norm; no values."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.empty_like(x).copy_(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        return x + gradient, (x * gradient).sum(0).sum(0) if ctx.needs_input_grad[1] else None
