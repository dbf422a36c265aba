"""The formulation of the nearest related method (ViFeEdit) as one block, for its cost.

Both streams form one sequence, side by side in a frame of twice the width, through the entire frozen block; every token
has its own modulation, since source and target have different timesteps; and two full copies of the attention, one
subtracted from the other, attend to each frame's 2*h*w tokens.

Shapes: L tokens of one stream, D width.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from imvideoedit.benchmark.block import Block, run_step
from imvideoedit.layers.attention import Attention
from imvideoedit.layers.spatial_difference import fold_frames, unfold_frames
from imvideoedit.methods.source_features import EditCall
from imvideoedit.wan.context import AdaptedProcessor, TokenContext, attach
from imvideoedit.wan.forward import open_forward


class PeerProcessor(AdaptedProcessor):
    """A_3d + Φ_a(H) - Φ_b(H) on the wide frame; both start from the weights of ``block``."""

    def __init__(self, index: int, block: Any, dtype: Any) -> None:
        super().__init__(index)
        self.positions = ("running",)
        self.phi_a, self.phi_b = (Attention(block.attn1, "full", 1, dtype) for _ in range(2))

    def adapt(self, h_BLD: Tensor, a_3d_BLD: Tensor, context: TokenContext) -> Tensor:
        cos, sin = (table[:, : context.grid[1] * context.grid[2]] for table in context.plane("running"))
        frames_XPD = fold_frames(h_BLD, context.grid)
        both = [
            phi(frames_XPD, phi.keys_values(frames_XPD, (cos, sin)), (cos, sin)) for phi in (self.phi_a, self.phi_b)
        ]
        return a_3d_BLD + unfold_frames(both[0] - both[1], context.grid)


def peer_step(block: Block, backward: bool) -> Callable[[], None]:
    """A step of an edit in one block of the peer, whose grid has twice the width."""
    install_peer(block, backward)
    return installed_peer_step(block, backward)


def install_peer(block: Block, backward: bool) -> None:
    """Put the peer's processor into a block."""
    block.transformer.requires_grad_(False)
    processor = PeerProcessor(0, block.transformer.blocks[0], block.dtype).requires_grad_(backward)
    open_forward(block.transformer)
    attach(block.transformer, [processor])


def installed_peer_step(block: Block, backward: bool) -> Callable[[], None]:
    """:func:`peer_step` in a block that has the peer's processor."""
    hidden_BLD = block.hidden(1, backward)
    return lambda: run_step(block.run(hidden_BLD, EditCall("joint"), per_token=True), backward)
