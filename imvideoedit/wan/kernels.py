"""Which kernels a transformer runs on: attention back-ends by name, and ``torch.compile`` for whole blocks.

Nothing that a block is told names the block, so that one graph serves all of them: one for each shape, and for each
kind of pass (of the source, of the target, with gradients or without). A checkpointed block is recomputed by the graph
of its forward pass.
"""

import contextlib
import math
import os
import shutil
import types
from collections.abc import Callable, Iterable
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from diffusers.utils import logging
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._triton import has_triton

from imvideoedit.common.errors import UserError
from imvideoedit.wan.context import block_dtype
from imvideoedit.wan.forward import COMPILED, is_compiled

NATIVE = "native"
SHORT = 512  # tokens
GRAPHS = 128  # of one function: shapes times kinds of passes


def choose_attention(transformer: WanTransformer3DModel, backend: str, device: torch.device) -> None:
    """From now on attend by a back-end, in the transformer and in what a method adds to it.

    Args:
        backend: one of diffusers': ``native`` is torch's own choice; ``flash``, ``_flash_3``, ``sage``,
            ``xformers`` and others need their package. It holds for the whole process.
        device: where the transformer will work.

    Raises:
        UserError: there is no such back-end, or it does not work here.
    """
    names = [name.value for name in AttentionBackendName]
    if backend not in names:
        raise UserError(f"attention is {backend!r}; choose one of {', '.join(names)}")
    probe = torch.zeros(1, 16, 1, 64, device=device, dtype=block_dtype(transformer))
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # diffusers warns of an experimental feature, also for the native one
    try:
        transformer.set_attention_backend(backend)
        dispatch_attention_fn(probe, probe, probe)
    except Exception as error:  # each back-end has its own ways to fail
        transformer.set_attention_backend(NATIVE)
        raise UserError(f"attention={backend} does not work here: {str(error).splitlines()[0]}") from error
    finally:
        logging.set_verbosity(verbosity)


def suited_kernel(transformer: WanTransformer3DModel, x_BCFHW: Tensor) -> contextlib.AbstractContextManager[None]:
    """For a training step on latents like ``x_BCFHW``: on a CPU the plain attention kernel beats the fused one there.

    Blocks that are recomputed in the backward pass, outside this context, would run another kernel there; they keep the
    usual one.
    """
    tokens = math.prod(x_BCFHW.shape[2:]) // math.prod(transformer.config.patch_size)
    short = x_BCFHW.device.type == "cpu" and tokens <= SHORT and not transformer.gradient_checkpointing
    return sdpa_kernel(SDPBackend.MATH) if short else contextlib.nullcontext()


def compile_blocks(
    transformer: WanTransformer3DModel,
    units: Iterable[nn.Module] = (),
    backend: str | Callable[..., Any] = "inductor",
    whole: bool = True,
) -> None:
    """Compile, in place, the forward pass of all blocks as one function, and a method's units.

    Hooks on a block, of offloading and caches, stay outside.

    Args:
        units: see ``Method.compile_units``.
        backend: of ``torch.compile``.
        whole: False where modules within a block have hooks that the compiler cannot take, as under FSDP2: the block
            then falls into several graphs.
    """
    if is_compiled(transformer):
        return
    use_right_vectors(next(transformer.parameters()).device)
    # torch's own limit is 8: few buckets of sizes would reach it.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, GRAPHS)
    forwards: dict[type, Any] = {}
    blocks: list[Any] = list(transformer.blocks)
    for block in blocks:
        kind = type(block)
        if kind not in forwards:
            forwards[kind] = torch.compile(kind.forward, fullgraph=whole, dynamic=False, backend=backend)
        block.forward = types.MethodType(forwards[kind], block)  # bound, so that a copy runs the copy
    for unit in units:
        unit.compile(dynamic=False, backend=backend)
    transformer.__dict__[COMPILED] = True


def use_right_vectors(device: torch.device) -> None:
    """Let what is compiled for a CPU from now on have vectors of 256 bits where it has 512.

    With 512 bits, torch 2.13 generates code for bfloat16 whose gradient of a norm's weight is NaN. Products of matrices
    are the library's, at any width.
    """
    if device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX512":
        from torch._inductor import config  # takes a second, which not every start should pay

        config.cpp.simdlen = 256


def release_blocks(transformer: WanTransformer3DModel, units: Iterable[nn.Module] = ()) -> None:
    """Undo :func:`compile_blocks`, before anything has wrapped the blocks."""
    blocks: list[Any] = list(transformer.blocks)
    for block in blocks:
        del block.forward
    for unit in units:
        unit._compiled_call_impl = None
    del transformer.__dict__[COMPILED]


def can_compile(device: torch.device) -> bool:
    """Whether compiled code can be made here for a GPU: by Triton, which needs a C compiler."""
    compilers = (os.environ.get("CC", "cc"), "gcc", "clang")
    return device.type == "cuda" and has_triton() and any(map(shutil.which, compilers))
