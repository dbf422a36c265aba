"""Attention that starts as a copy of a frozen one, or as the frozen one itself plus low-rank deltas.

Shapes: B batch, L query tokens, M tokens attended to, D width, N heads, E = D / N.
"""

from typing import Any, Literal

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import Tensor, nn

from imvideoedit.layers.low_rank import Frozen, LowRankDelta
from imvideoedit.layers.quantized import trained_copy
from imvideoedit.layers.rope import apply_rotary

Adapter = Literal["full", "lora"]
KeysValues = tuple[Tensor, Tensor]
"""Keys, normalised and rotated to their positions, and values, ``[B, M, N, E]`` each."""
ADAPTERS: tuple[Adapter, ...] = ("full", "lora")


class TrainedNorm(nn.RMSNorm):
    """A trainable copy of a norm that computes in the precision of its weight, also under autocast.

    The fused kernel needs one dtype; without it torch falls back to slow separate steps.
    """

    def __init__(self, base: nn.RMSNorm, dtype: torch.dtype) -> None:
        super().__init__(base.normalized_shape, base.eps, device=base.weight.device, dtype=dtype)
        self.weight.data.copy_(base.weight)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class Attention(nn.Module):
    """Multi-head attention with query/key norms over the full width, as in Wan.

    Args:
        base: attention to inherit from, a diffusers ``WanAttention`` or one with its projections and norms.
        adapter: ``full`` copies all weights and trains them; ``lora`` shares them frozen and trains
            low-rank deltas on the four projections. Either way the start is the base attention itself.
        rank: of the deltas; unused by ``full``.
        dtype: of the trained weights.
    """

    def __init__(self, base: Any, adapter: Adapter, rank: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()

        def projection(linear: nn.Linear) -> nn.Module:
            if adapter == "lora":
                return LowRankDelta(linear, rank, dtype)
            return trained_copy(linear, dtype)

        def norm(module: nn.RMSNorm) -> nn.Module:
            return Frozen(module) if adapter == "lora" else TrainedNorm(module, dtype)

        self.heads: int = base.heads
        self.to_q, self.to_k, self.to_v = projection(base.to_q), projection(base.to_k), projection(base.to_v)
        self.to_out = projection(base.to_out[0])
        self.norm_q, self.norm_k = norm(base.norm_q), norm(base.norm_k)

    def keys_values(self, tokens_BMD: Tensor, rotary: tuple[Tensor, Tensor] | None = None) -> KeysValues:
        """Keys and values of tokens.

        Args:
            rotary: ``(cos, sin)`` of their positions, each ``[1, M, 1, E]``; None for tokens without one.
        """
        key_BMNE = self._rotated(self.norm_k(self.to_k(tokens_BMD)), rotary)
        value_BMNE = self.to_v(tokens_BMD).unflatten(-1, (self.heads, -1))
        # Under autocast the norms return float32 while the values are half: the fused kernel wants one dtype.
        return key_BMNE.to(value_BMNE.dtype), value_BMNE

    def forward(self, query_BLD: Tensor, attended: KeysValues, rotary: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Let the query tokens attend to keys and values.

        Args:
            rotary: ``(cos, sin)`` of the queries' positions, each ``[1, L, 1, E]``; None for queries without one.

        Returns:
            ``[B, L, D]``.
        """
        key_BMNE, value_BMNE = attended
        query_BLNE = self._rotated(self.norm_q(self.to_q(query_BLD)), rotary).to(value_BMNE.dtype)
        return self.to_out(dispatch_attention_fn(query_BLNE, key_BMNE, value_BMNE).flatten(2))

    def _rotated(self, x_BLD: Tensor, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        x_BLNE = x_BLD.unflatten(-1, (self.heads, -1))
        return x_BLNE if rotary is None else apply_rotary(x_BLNE, *rotary)
