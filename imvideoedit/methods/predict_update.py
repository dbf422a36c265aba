"""Predict-update spatial difference attention with a text-driven gate (Eq. 4 to 10), after arXiv 2604.07958.

Shapes: B batch (2B where the streams are stacked), L tokens, D width.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from imvideoedit.flow.matching import FlowMatching
from imvideoedit.layers.attention import Adapter, Attention
from imvideoedit.layers.low_rank import LowRank
from imvideoedit.layers.rope import Position
from imvideoedit.layers.semantic_gate import SemanticGate
from imvideoedit.layers.spatial_difference import SpatialDifference
from imvideoedit.methods.base import Gauge
from imvideoedit.methods.two_stream import SourceStream, TwoStreamMethod, check_choice
from imvideoedit.methods.two_stream_processor import TwoStreamProcessor
from imvideoedit.wan.context import TokenContext

UpdateInit = Literal["zero_out", "paper"]


class PredictUpdateProcessor(TwoStreamProcessor):
    """The adapter of one block. ``block`` gives it weights to inherit; see :class:`PredictUpdate` for the options."""

    def __init__(self, index: int, block: Any, options: "PredictUpdate", dtype: torch.dtype) -> None:
        super().__init__(index, options.position)
        width = block.attn1.to_q.in_features
        where = {"device": block.attn1.to_q.weight.device, "dtype": dtype}

        def norm() -> nn.LayerNorm:
            return nn.LayerNorm(width, eps=block.norm1.eps, **where)

        def phi() -> SpatialDifference:
            return SpatialDifference(Attention(block.attn1, options.adapter, options.rank, dtype), norm())

        def zero_linear() -> nn.Module:
            if options.adapter == "lora":
                return LowRank(width, width, options.rank, bias=True, **where)
            linear = nn.Linear(width, width, **where)
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
            return linear

        self.phi_1 = phi()
        self.w_0 = zero_linear()
        self.phi_2 = phi() if options.update else None
        self.reads_a_3d = options.update
        self.zero_out = zero_linear() if options.update and options.update_init == "zero_out" else None
        self.prepared_width = 2 * width * (2 if options.update else 1)
        self.gate = None
        if options.update and options.gate:
            attention = Attention(block.attn2, options.adapter, options.rank, dtype)
            hidden = options.rank if options.adapter == "lora" else width
            self.gate = SemanticGate(attention, norm(), width, hidden, **where)

    def prepare(self, h_BLD: Tensor, a_3d_BLD: Tensor | None, context: TokenContext) -> Any:
        source_1 = self.source_keys_values(self.phi_1, h_BLD, context)
        # Eq. 6: a cached source attends to no other stream (A_2d = 0), so its R is its A_3d.
        source_2 = (
            None if self.phi_2 is None or a_3d_BLD is None else self.source_keys_values(self.phi_2, a_3d_BLD, context)
        )
        return source_1, source_2

    def attend_text(self, text_BTD: Tensor) -> Any:
        return () if self.gate is None else self.gate.attention.keys_values(text_BTD)

    def edit(self, h_BLD: Tensor, a_3d_BLD: Tensor, context: TokenContext, source: Any, text: Any = None) -> Tensor:
        source_1, source_2 = (None, None) if source is None else source
        # Eq. 4: A_2d = Φ₁(LN₁(H))
        a_2d_BLD = self.attend(self.phi_1, h_BLD, source_1, context)
        # Eq. 5: H_pred = A_3d + W₀ A_2d
        h_pred_BLD = a_3d_BLD + self.w_0(a_2d_BLD)
        if self.phi_2 is None:
            return h_pred_BLD
        # Eq. 6: R = H_pred - A_2d
        r_BLD = h_pred_BLD - a_2d_BLD
        # Eq. 7: Δ = Φ₂(LN₂(R))
        delta_BLD = self.attend(self.phi_2, r_BLD, source_2, context)
        update_BLD = delta_BLD if self.zero_out is None else self.zero_out(delta_BLD)
        # Eq. 8 and 9: G = σ(GateProj(CrossAttn(LN(Δ), text)))
        read = context.text_BTD if text is None else text
        gated_BLD = update_BLD if self.gate is None else self.gate(delta_BLD, read) * update_BLD
        # Eq. 10: H_out = H_pred + G ⊙ Δ
        return h_pred_BLD + gated_BLD


class PredictUpdate(TwoStreamMethod):
    """The method of the paper.

    Args:
        update_init: ``zero_out`` puts a linear map that starts at zero on Δ before Eq. 10, so that training starts
            at the frozen model exactly; ``paper`` has no such map and starts elsewhere, since Δ is not zero.
        gate: False sets G = 1.
        update: False stops at H_out = H_pred.
        source_stream, adapter, rank, position, objective: see :class:`TwoStreamMethod`.

    Raises:
        UserError: an argument is none of its choices.
    """

    name = "predict_update"

    def __init__(
        self,
        update_init: UpdateInit = "zero_out",
        source_stream: SourceStream = "cached",
        adapter: Adapter = "full",
        rank: int = 32,
        position: Position = "aligned",
        gate: bool = True,
        update: bool = True,
        objective: FlowMatching | None = None,
    ) -> None:
        super().__init__(source_stream, adapter, rank, position, objective)
        check_choice("update_init", update_init, ("zero_out", "paper"))
        self.update_init = update_init
        self.gate = gate
        self.update = update

    def config(self) -> dict[str, Any]:
        return super().config() | {"update_init": self.update_init, "gate": self.gate, "update": self.update}

    def build_processor(self, index: int, block: nn.Module, dtype: torch.dtype) -> PredictUpdateProcessor:
        return PredictUpdateProcessor(index, block, self, dtype)

    def gauges(self) -> Mapping[str, Gauge]:
        """The gates."""
        blocks: list[Any] = list(self.blocks)
        gated = ((index, block.gate) for index, block in enumerate(blocks) if block.gate is not None)
        return {f"gate/{index:02d}": (gate, _as_is) for index, gate in gated}


def _as_is(gate: Tensor) -> Tensor:
    return gate
