"""Which kernels a transformer runs on: attention back-ends by name, and ``torch.compile`` inside each block.

Entire blocks are not compiled: their context holds the index of the block and the source's features, so each block
would get a graph of its own, and the recomputation of a checkpointed block could use another graph than its forward
pass. The parts that do the work take and return tensors only: one graph for all blocks, and one for each shape.
"""

import contextlib
import math
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from diffusers.utils import logging
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from imvideoedit.common.errors import UserError
from imvideoedit.wan.context import block_dtype

NATIVE = "native"
SHORT = 512  # tokens


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
    transformer: WanTransformer3DModel, units: Iterable[nn.Module] = (), backend: str = "inductor"
) -> None:
    """Compile, in place, each block's cross-attention and feed-forward, and a method's units.

    Args:
        units: see ``Method.compile_units``.
    """
    # Rotary embeddings multiply complex numbers, which then run in the usual kernel.
    warnings.filterwarnings("ignore", message="Torchinductor does not support code generation for complex")
    blocks: Any = transformer.blocks
    for part in (*(part for block in blocks for part in (block.attn2, block.ffn)), *units):
        part.compile(dynamic=False, backend=backend)
