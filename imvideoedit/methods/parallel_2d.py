"""Naive parallel 2D attention, the nearest relative's way (ViFeEdit) and the baseline of the paper's ablation.

H_out = A_3d + Φ_a(H) + Φ_b(H): two attentions on the same input, where Φ_b starts as -Φ_a, so that they cancel.

Shapes: B batch (2B where the streams are stacked), L tokens, D width.
"""

from typing import Any

import torch
from torch import Tensor, nn

from imvideoedit.layers.attention import Attention
from imvideoedit.layers.spatial_difference import SpatialDifference
from imvideoedit.methods.two_stream import TwoStreamMethod
from imvideoedit.methods.two_stream_processor import TwoStreamProcessor
from imvideoedit.wan.context import TokenContext


class Parallel2DProcessor(TwoStreamProcessor):
    """The adapter of one block; ``block`` gives it weights to inherit."""

    def __init__(self, index: int, block: Any, options: "Parallel2D", dtype: torch.dtype) -> None:
        super().__init__(index, options.position)
        self.phi_a, self.minus_phi_b = (
            SpatialDifference(Attention(block.attn1, options.adapter, options.rank, dtype), nn.Identity())
            for _ in range(2)
        )
        self.prepared_width = 4 * block.attn1.to_q.in_features

    def prepare(self, h_BLD: Tensor, a_3d_BLD: Tensor | None, context: TokenContext) -> Any:
        return self.source_keys_values(self.phi_a, h_BLD, context), self.source_keys_values(
            self.minus_phi_b, h_BLD, context
        )

    def edit(self, h_BLD: Tensor, a_3d_BLD: Tensor, context: TokenContext, source: Any, text: Any = None) -> Tensor:
        source_a, source_b = (None, None) if source is None else source
        # Φ_b is kept as the attention whose output is subtracted. Its start is Φ_a's own, so the difference is an exact
        # zero, and it is taken before A_3d is added, which rounding would otherwise disturb.
        difference_BLD = self.attend(self.phi_a, h_BLD, source_a, context) - self.attend(
            self.minus_phi_b, h_BLD, source_b, context
        )
        return a_3d_BLD + difference_BLD


class Parallel2D(TwoStreamMethod):
    """The baseline; all options are those of :class:`TwoStreamMethod`."""

    name = "parallel_2d"

    def build_processor(self, index: int, block: nn.Module, dtype: torch.dtype) -> Parallel2DProcessor:
        return Parallel2DProcessor(index, block, self, dtype)
