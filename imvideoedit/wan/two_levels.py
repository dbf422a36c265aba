"""Blocks of a transformer for tokens of two timesteps: the first ones have one, the others another.

diffusers' blocks take a timestep for each token, and then hold six rows of the model's width for each. Here two rows of
each kind are enough; the result is the same bit for bit.

Shapes: B batch, L tokens, D width.
"""

import copy
from typing import Any, NamedTuple

import torch
from diffusers import WanTransformer3DModel
from diffusers.hooks._helpers import TransformerBlockRegistry
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from torch import Tensor


class TwoLevels(NamedTuple):
    """In place of the modulation rows of a pass: ``[B, 2, 6, D]``, and how many tokens have the first of the two."""

    rows_B26D: Tensor
    first: int

    def of_tokens(self, own: slice) -> "TwoLevels":
        """Those of a part of the tokens, where processes share a pass."""
        return TwoLevels(self.rows_B26D, min(max(self.first - own.start, 0), own.stop - own.start))


class TwoLevelBlock(WanTransformerBlock):
    """A block that takes :class:`TwoLevels`, too."""

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Any, rotary_emb: Any) -> Tensor:
        if not isinstance(temb, TwoLevels):
            return super().forward(hidden_states, encoder_hidden_states, temb, rotary_emb)
        own: Any = self
        rows_B26D, count = self.scale_shift_table.unsqueeze(1) + temb.rows_B26D.float(), temb.first
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = rows_B26D.unbind(2)
        x = hidden_states
        h = _scaled(own.norm1(x.float()), 1 + scale_a, count, shift_a).type_as(x)
        x = (x.float() + _scaled(own.attn1(h, None, None, rotary_emb), gate_a, count)).type_as(x)
        h = own.norm2(x.float()).type_as(x)
        x = x + own.attn2(h, encoder_hidden_states, None, None)
        h = _scaled(own.norm3(x.float()), 1 + scale_f, count, shift_f).type_as(x)
        return (x.float() + _scaled(own.ffn(h).float(), gate_f, count)).type_as(x)


def _scaled(x_BLD: Tensor, scale_B2D: Tensor, count: int, shift_B2D: Tensor | None = None) -> Tensor:
    """``x scale + shift``, by the first of two values for the first tokens, and by the second for the others."""
    parts = []
    for level, part in enumerate((x_BLD[:, :count], x_BLD[:, count:])):
        scaled = part * scale_B2D[:, level, None]
        parts.append(scaled if shift_B2D is None else scaled + shift_B2D[:, level, None])
    return torch.cat(parts, dim=1)


def take_two_levels(transformer: WanTransformer3DModel) -> None:
    """Let the blocks take :class:`TwoLevels`."""
    # diffusers' caches know blocks by their class.
    TransformerBlockRegistry.register(TwoLevelBlock, copy.copy(TransformerBlockRegistry.get(WanTransformerBlock)))
    for block in transformer.blocks:
        block.__class__ = TwoLevelBlock


def take_one_level(transformer: WanTransformer3DModel) -> None:
    """Undo :func:`take_two_levels`."""
    for block in transformer.blocks:
        block.__class__ = WanTransformerBlock
