"""Attention that starts as a copy of a frozen one, or as the frozen one itself plus low-rank deltas.

Shapes: B batch, L query tokens, M memory tokens, D width, N heads, E = D / N.
"""

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imvideoedit.layers.low_rank import Frozen, LowRankDelta
from imvideoedit.layers.rope import apply_rotary

Adapter = Literal["full", "lora"]
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
            return copy.deepcopy(linear).to(dtype).requires_grad_(True)

        def norm(module: nn.RMSNorm) -> nn.Module:
            return Frozen(module) if adapter == "lora" else TrainedNorm(module, dtype)

        self.heads: int = base.heads
        self.to_q, self.to_k, self.to_v = projection(base.to_q), projection(base.to_k), projection(base.to_v)
        self.to_out = projection(base.to_out[0])
        self.norm_q, self.norm_k = norm(base.norm_q), norm(base.norm_k)

    def forward(self, query_BLD: Tensor, memory_BMD: Tensor, rotary: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Let the query tokens read the memory tokens.

        Args:
            query_BLD: may be the first L tokens of the memory, or foreign to it when ``rotary`` is None.
            memory_BMD: read through keys and values.
            rotary: ``(cos, sin)``, each ``[1, M, 1, E]``; queries take the first L rows.

        Returns:
            ``[B, L, D]``.
        """
        query_BLNE = self.norm_q(self.to_q(query_BLD)).unflatten(-1, (self.heads, -1))
        key_BMNE = self.norm_k(self.to_k(memory_BMD)).unflatten(-1, (self.heads, -1))
        value_BMNE = self.to_v(memory_BMD).unflatten(-1, (self.heads, -1))
        if rotary is not None:
            cos, sin = rotary
            length = query_BLD.shape[1]
            query_BLNE = apply_rotary(query_BLNE, cos[:, :length], sin[:, :length])
            key_BMNE = apply_rotary(key_BMNE, cos, sin)
        # Under autocast the norms return float32 while the values are half: the fused kernel wants one dtype.
        mixed_BNLE = F.scaled_dot_product_attention(
            query_BLNE.to(value_BMNE.dtype).transpose(1, 2),
            key_BMNE.to(value_BMNE.dtype).transpose(1, 2),
            value_BMNE.transpose(1, 2),
        )
        return self.to_out(mixed_BNLE.transpose(1, 2).flatten(2))
