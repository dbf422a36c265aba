"""``torch.compile`` inside each block of a transformer, such that it works under gradient checkpointing.

Whole blocks are not compiled: their call carries which block it is and what the source left, and each of both would
make a graph of its own. The recomputation could then meet another graph than the forward pass did. The parts that do
the work take and give tensors alone, have one graph for all blocks, and one for each shape.
"""

from collections.abc import Iterator
from typing import Any

from diffusers import WanTransformer3DModel
from torch import nn


def compile_blocks(transformer: WanTransformer3DModel, backend: str = "inductor") -> None:
    """Compile, in place, each block's cross-attention, feed-forward and the parts that a method added."""
    for block in transformer.blocks:
        for part in _parts(block):
            part.compile(dynamic=False, backend=backend)


def _parts(block: Any) -> Iterator[nn.Module]:
    yield from (block.attn2, block.ffn)
    yield from (part for part in block.attn1.processor.children() if list(part.parameters()))
