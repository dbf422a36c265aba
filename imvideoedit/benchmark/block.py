"""One block of a Wan transformer at its real width, plain and with each adapter, on random inputs.

Shapes: B batch (one), L tokens, D width, T text tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from imvideoedit.methods.source_features import EditCall
from imvideoedit.methods.two_stream import TwoStreamMethod
from imvideoedit.training.flops import make_fake
from imvideoedit.wan.bases import WAN_1_3B
from imvideoedit.wan.context import TokenContext

Grid = tuple[int, int, int]
IMAGE: Grid = (1, 30, 52)  # tokens of a frame of 480x832
VIDEO: Grid = (21, 30, 52)  # of 81 frames
TEXT = 512  # tokens


@dataclass
class Block:
    """A frozen transformer of one block, and inputs of that block on a token grid.

    Args:
        grid: tokens in time, height and width.
        config: of the transformer; Wan 1.3B's with one layer if None.
    """

    grid: Grid
    config: dict[str, Any] | None = None
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        config = {**WAN_1_3B, "num_layers": 1} if self.config is None else self.config
        self.transformer = WanTransformer3DModel(**config).requires_grad_(False).eval().to(self.device, self.dtype)
        heads, size = self.transformer.config.num_attention_heads, self.transformer.config.attention_head_dim
        self.width = heads * size
        frames, height, width = self.grid
        patch = self.transformer.config.patch_size
        self.latents = torch.zeros(1, 1, frames * patch[0], height * patch[1], width * patch[2], device=self.device)
        self.text_BTD = self._random(1, TEXT, self.width)

    def make_fake(self) -> None:
        """Within a ``FakeTensorMode``: weights and inputs of a block on the meta device become fake ones on the CPU."""
        make_fake(self.transformer)
        self.device = torch.device("cpu")
        self.latents, self.text_BTD = (torch.empty(x.shape, dtype=x.dtype) for x in (self.latents, self.text_BTD))

    def hidden(self, streams: int, trained: bool) -> Tensor:
        """Random tokens ``[streams, L, D]``; ``trained`` adds a gradient to earlier blocks."""
        frames, height, width = self.grid
        return self._random(streams, frames * height * width, self.width).requires_grad_(trained)

    def run(self, hidden_BLD: Tensor, call: EditCall | None, per_token: bool = False) -> Tensor:
        """The block's output; with ``per_token`` every token has its own modulation."""
        batch, tokens, _ = hidden_BLD.shape
        shape = (batch, tokens, 6, self.width) if per_token else (batch, 6, self.width)
        text_BTD, rows = self.text_BTD.expand(batch, -1, -1), self._random(*shape)
        rotary: Any = self.transformer.rope(self.latents) if call is None else self.context(call, text_BTD, rows)
        return self.transformer.blocks[0](hidden_BLD, text_BTD, rows, rotary)

    def context(self, call: EditCall | None, text_BTD: Tensor, rows: Tensor) -> TokenContext:
        """The context of the block's self-attention."""
        told = None if call is None else call.of_block(0)
        context = TokenContext.build(self.transformer.rope, self.latents, text_BTD, rows, told)
        processor: Any = self.transformer.blocks[0].attn1.processor
        for position in processor.positions:
            context.plane(position)  # for all blocks, before the first
        return context

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(*shape, device=self.device, dtype=self.dtype) * 0.1


def plain_step(block: Block, backward: bool) -> Callable[[], None]:
    """The stock block on one stream; ``backward`` goes through it to earlier blocks."""
    hidden_BLD = block.hidden(1, backward)
    return lambda: run_step(block.run(hidden_BLD, None), backward)


def edit_step(block: Block, method: TwoStreamMethod, backward: bool) -> Callable[[], None]:
    """A step of an edit in one block with an installed method: both streams, or the target stream alone.

    Training (``backward``) computes a cached source's features at every step; sampling reuses them.
    """
    method.requires_grad_(backward)
    if method.source_stream == "joint":
        both_BLD = block.hidden(2, backward)
        return lambda: run_step(block.run(both_BLD, EditCall("joint")), backward)
    target_BLD, source_BLD = block.hidden(1, backward), block.hidden(1, False)

    def recorded() -> EditCall:
        call = EditCall("record")
        with torch.no_grad():
            block.run(source_BLD, call)
        return EditCall("read", call.features)

    known = EditCall("read")
    if not backward:
        known.features.prepared[0] = prepare_step(block, method)()
    return lambda: run_step(block.run(target_BLD, recorded() if backward else known), backward)


def prepare_step(block: Block, method: TwoStreamMethod) -> Callable[[], Any]:
    """Preparing a source's features, once for all steps."""
    processor: Any = method.blocks[0]
    source_BLD = block.hidden(1, False)
    context = block.context(None, block.text_BTD, torch.empty(0))
    return lambda: processor.prepare(source_BLD, source_BLD, context)


def run_step(output_BLD: Tensor, backward: bool) -> None:
    """Run the backward pass of a step's output, if the step trains."""
    if backward:
        output_BLD.backward(torch.ones_like(output_BLD))
