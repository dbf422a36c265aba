"""Our own block: every target token compares itself with the source token at its position, and with the text.

Predict-update reaches the source through softmax attention alone, and its text only scales the result. Here
the source token of the same frame and position enters directly, which can copy exactly, and text enters as a value
too, which can write what the source does not show:

    A_2d = Φ₁(LN₁(H))                                 as the paper's Eq. 4
    S    = CrossAttn(LN(H + H_src), text)             text attended from this position
    x    = [LN(H) ; LN(H_src) ; A_2d ; S]
    H_out = A_3d + W_o (σ(W_g x) ⊙ W_v x)             W_o starts at zero: training starts at the frozen model

A transformer is not exact, so unchanged regions would still be redrawn. The last hidden state therefore also gives, for
each latent value, how far its clean estimate is pulled to the source z_src:

    x̂ = x_t - t v,   v' = v + M (x̂ - z_src) / max(t, t_0),   M = tanh(W_m LN(hidden))       W_m starts at zero

Shapes: B batch (2B where the streams are stacked), L tokens, D width; C channels, F frames, H W of latents.
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional as F

from imvideoedit.layers.attention import Attention
from imvideoedit.layers.spatial_difference import SpatialDifference
from imvideoedit.methods.base import Gauge
from imvideoedit.methods.two_stream import TwoStreamMethod
from imvideoedit.methods.two_stream_processor import TwoStreamProcessor
from imvideoedit.wan.context import TokenContext
from imvideoedit.wan.forward import unpatch

LOWEST_SIGMA = 0.1  # t_0: below it the pull fades, since a wrong one would cost 1 / t²


class AlignedUpdateProcessor(TwoStreamProcessor):
    """The adapter of one block; ``block`` gives it weights to inherit."""

    def __init__(self, index: int, block: Any, options: "AlignedUpdate", dtype: torch.dtype) -> None:
        super().__init__(index, options.position)
        width = block.attn1.to_q.in_features
        hidden = options.rank if options.adapter == "lora" else width
        where = {"device": block.attn1.to_q.weight.device, "dtype": dtype}

        def norm() -> nn.LayerNorm:
            return nn.LayerNorm(width, eps=block.norm1.eps, **where)

        def attention(base: Any) -> Attention:
            return Attention(base, options.adapter, options.rank, dtype)

        self.phi_1 = SpatialDifference(attention(block.attn1), norm())
        self.norm_target, self.norm_source, self.norm_query = norm(), norm(), norm()
        self.read_text = attention(block.attn2)
        self.gate, self.value = (SplitLinear(4 * width, hidden, **where) for _ in range(2))
        self.out = nn.Linear(hidden, width, **where)
        self.prepared_width = 3 * width + 2 * hidden
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def prepare(self, h_BLD: Tensor, a_3d_BLD: Tensor | None, context: TokenContext) -> Any:
        return self.source_keys_values(self.phi_1, h_BLD, context), h_BLD, *self._of_source(h_BLD)

    def attend_text(self, text_BTD: Tensor) -> Any:
        return self.read_text.keys_values(text_BTD)

    def edit(self, h_BLD: Tensor, a_3d_BLD: Tensor, context: TokenContext, source: Any, text: Any = None) -> Tensor:
        if source is None:  # stacked streams are each other's source
            other_BLD = torch.cat(h_BLD.chunk(2)[::-1])
            source = (None, other_BLD, *self._of_source(other_BLD))
        attended, other_BLD, gate_BLD, value_BLD = source
        # Eq. 4: A_2d = Φ₁(LN₁(H))
        a_2d_BLD = self.attend(self.phi_1, h_BLD, attended, context)
        text = self.attend_text(context.text_BTD) if text is None else text
        mixed = torch.cat([a_2d_BLD, self.read_text(self.norm_query(h_BLD + other_BLD), text)], dim=-1)
        target_BLD = self.norm_target(h_BLD)
        gate_BLD = torch.sigmoid(self.gate(target_BLD, gate_BLD, mixed))
        return a_3d_BLD + self.out(gate_BLD * self.value(target_BLD, value_BLD, mixed))

    def _of_source(self, source_BLD: Tensor) -> list[Tensor]:
        """The terms of W_g x and W_v x that depend on LN(H_src)."""
        normed_BLD = self.norm_source(source_BLD)
        return [linear.of_source(normed_BLD) for linear in (self.gate, self.value)]


class SplitLinear(nn.Linear):
    """W x + b for x = [LN(H) ; LN(H_src) ; A_2d ; S], whose source term can be cached."""

    def of_source(self, source_BLD: Tensor) -> Tensor:
        """The term of LN(H_src) in W x."""
        return F.linear(source_BLD, self._columns()[1])

    def forward(self, target_BLD: Tensor, of_source_BLD: Tensor, mixed: Tensor) -> Tensor:  # type: ignore[override]
        """W x + b from LN(H), the result of :meth:`of_source`, and ``[A_2d ; S]``."""
        of_target, _, of_mixed = self._columns()
        return of_source_BLD + F.linear(target_BLD, of_target, self.bias) + F.linear(mixed, of_mixed)

    def _columns(self) -> tuple[Tensor, ...]:
        width = self.in_features // 4
        return self.weight.split([width, width, 2 * width], dim=1)


class AlignedUpdate(TwoStreamMethod):
    """The method of this project; all options are those of :class:`TwoStreamMethod`."""

    name = "aligned_update"
    anchor: nn.Module  # W_m; there while installed

    def build_processor(self, index: int, block: nn.Module, dtype: torch.dtype) -> AlignedUpdateProcessor:
        return AlignedUpdateProcessor(index, block, self, dtype)

    def build(self, transformer: WanTransformer3DModel, dtype: torch.dtype) -> None:
        super().build(transformer, dtype)
        out = transformer.proj_out
        where = {"device": out.weight.device, "dtype": dtype}
        linear = nn.Linear(out.in_features, out.out_features, **where)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        self.anchor = nn.Sequential(nn.LayerNorm(out.in_features, **where), linear)

    def gauges(self) -> Mapping[str, Gauge]:
        """The gates, whose linear maps come before the sigmoid."""
        blocks: list[Any] = list(self.blocks)
        return {f"gate/{index:02d}": (block.gate, torch.sigmoid) for index, block in enumerate(blocks)}

    def finish(
        self, v_BCFHW: Tensor, hidden_BLD: Tensor, x_BCFHW: Tensor, sigma_B: Tensor, source_BCFHW: Tensor
    ) -> Tensor:
        """Pull the clean estimate to the source by M, for each latent value."""
        transformer: Any = self.transformer
        pull_BCFHW = unpatch(torch.tanh(self.anchor(hidden_BLD)), x_BCFHW.shape, transformer.config.patch_size)
        sigma_B1111 = sigma_B.to(v_BCFHW.dtype).reshape(-1, 1, 1, 1, 1)
        clean_BCFHW = x_BCFHW - sigma_B1111 * v_BCFHW
        return v_BCFHW + pull_BCFHW * (clean_BCFHW - source_BCFHW) / sigma_B1111.clamp(min=LOWEST_SIGMA)
