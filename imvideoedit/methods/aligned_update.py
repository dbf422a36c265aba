"""Our own block: every target token compares itself with the source token at its place, and with the text.

Predict-update reaches the source through softmax attention alone and lets the text only scale what comes of it. Here
the source token of the same frame and place is read as it is, which copies exactly, and text is read as a value too,
which can write what the source does not show:

    A_2d = Φ₁(LN₁(H))                                 as the paper's Eq. 4
    S    = CrossAttn(LN(H + H_src), text)             what the text says of this place
    x    = [LN(H) ; LN(H_src) ; A_2d ; S]
    H_out = A_3d + W_o (σ(W_g x) ⊙ W_v x)             W_o starts at zero: training starts at the frozen model

A transformer rounds off whatever passes through it, so what is kept would still be redrawn. The last hidden state
therefore also says, for each latent value, how far its clean estimate is to be drawn to the source z_src:

    x̂ = x_t - t v,   v' = v + M (x̂ - z_src) / max(t, t_0),   M = tanh(W_m LN(hidden))       W_m starts at zero

Shapes: B batch (2B where the streams are stacked), L tokens, D width; C channels, F frames, H W of latents.
"""

from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional as F

from imvideoedit.layers.attention import Attention
from imvideoedit.layers.spatial_difference import SpatialDifference
from imvideoedit.methods.two_stream import TwoStreamMethod, TwoStreamProcessor
from imvideoedit.wan.context import EditCall, TokenContext, keep_hidden

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
        self.gate, self.value = (PartedLinear(4 * width, hidden, **where) for _ in range(2))
        self.out = nn.Linear(hidden, width, **where)
        self.ready_width = 3 * width + 2 * hidden
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def prepare(self, h_BLD: Tensor, a_3d_BLD: Tensor | None, context: TokenContext) -> Any:
        return self.remember(self.phi_1, h_BLD, context), h_BLD, *self._shown(h_BLD)

    def edit(self, h_BLD: Tensor, a_3d_BLD: Tensor, context: TokenContext, source: Any) -> Tensor:
        if source is None:  # stacked streams are each other's source
            other_BLD = torch.cat(h_BLD.chunk(2)[::-1])
            source = (None, other_BLD, *self._shown(other_BLD))
        memory, other_BLD, gate_BLD, value_BLD = source
        # Eq. 4: A_2d = Φ₁(LN₁(H))
        a_2d_BLD = self.meet(self.phi_1, h_BLD, memory, context)
        text = self.read_text.memory(context.text_BTD)
        seen = torch.cat([a_2d_BLD, self.read_text(self.norm_query(h_BLD + other_BLD), text)], dim=-1)
        target_BLD = self.norm_target(h_BLD)
        gate_BLD = torch.sigmoid(self.gate(target_BLD, gate_BLD, seen))
        return a_3d_BLD + self.out(gate_BLD * self.value(target_BLD, value_BLD, seen))

    def _shown(self, source_BLD: Tensor) -> list[Tensor]:
        """The part of W_g x and W_v x that LN(H_src) makes."""
        normed_BLD = self.norm_source(source_BLD)
        return [linear.of_source(normed_BLD) for linear in (self.gate, self.value)]


class PartedLinear(nn.Linear):
    """W x + b for x = [LN(H) ; LN(H_src) ; A_2d ; S], of which the source's part can be kept."""

    def of_source(self, source_BLD: Tensor) -> Tensor:
        """What LN(H_src) adds to W x."""
        return F.linear(source_BLD, self._columns()[1])

    def forward(self, target_BLD: Tensor, of_source_BLD: Tensor, seen: Tensor) -> Tensor:  # type: ignore[override]
        """The whole: of LN(H), of the source as :meth:`of_source` gave it, and of ``[A_2d ; S]``."""
        of_target, _, of_seen = self._columns()
        return of_source_BLD + F.linear(target_BLD, of_target, self.bias) + F.linear(seen, of_seen)

    def _columns(self) -> tuple[Tensor, ...]:
        width = self.in_features // 4
        return self.weight.split([width, width, 2 * width], dim=1)


class AlignedUpdate(TwoStreamMethod):
    """The method of this project; all options are those of :class:`TwoStreamMethod`."""

    name = "aligned_update"
    anchor: nn.Module  # W_m; there while installed

    def build_processor(self, index: int, block: nn.Module, dtype: torch.dtype) -> AlignedUpdateProcessor:
        return AlignedUpdateProcessor(index, block, self, dtype)

    def install(self, transformer: WanTransformer3DModel, dtype: torch.dtype = torch.float32) -> None:
        super().install(transformer, dtype)
        out = transformer.proj_out
        where = {"device": out.weight.device, "dtype": dtype}
        linear = nn.Linear(out.in_features, out.out_features, **where)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        self.anchor = nn.Sequential(nn.LayerNorm(out.in_features, **where), linear)
        self._handles.append(keep_hidden(transformer))

    def uninstall(self) -> None:
        if self.transformer is not None:
            del self.anchor
        super().uninstall()

    def finish(self, v_BCFHW: Tensor, x_BCFHW: Tensor, sigma_B: Tensor, source_BCFHW: Tensor, call: EditCall) -> Tensor:
        """Draw the clean estimate to the source by M, for each latent value."""
        transformer: Any = self.transformer
        assert call.hidden_BLD is not None
        pull_BLP = torch.tanh(self.anchor(call.hidden_BLD[: len(x_BCFHW)]))
        pull_BCFHW = unpatched(pull_BLP, x_BCFHW.shape, transformer.config.patch_size)
        sigma_B1111 = sigma_B.to(v_BCFHW.dtype).reshape(-1, 1, 1, 1, 1)
        clean_BCFHW = x_BCFHW - sigma_B1111 * v_BCFHW
        return v_BCFHW + pull_BCFHW * (clean_BCFHW - source_BCFHW) / sigma_B1111.clamp(min=LOWEST_SIGMA)


def unpatched(x_BLP: Tensor, shape: torch.Size, patch: tuple[int, int, int]) -> Tensor:
    """Values of tokens, as the transformer's last layer orders them, to latents of ``shape`` ``[B, C, F, H, W]``."""
    batch, channels = shape[:2]
    sizes = [size // side for size, side in zip(shape[2:], patch, strict=True)]
    x = x_BLP.reshape(batch, *sizes, *patch, channels)
    return x.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(shape)
