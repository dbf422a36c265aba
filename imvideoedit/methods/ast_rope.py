"""AST-RoPE (FFP-300K, Sec. 4.2): positions in time that depend on the source, other for spatial and temporal heads.

Shapes: B batch, C channels, F latent frames, H W latent pixels, N heads.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from imvideoedit.layers.time_positions import Tables, for_heads, time_tables
from imvideoedit.methods.block_lora import MethodRotary


def positions(scales_B2: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Positions in time for spatial and temporal heads, float64 ``[B, F]`` each; for (0, 1) both are 0, 1, 2, ...

    Spatial: the first frame at alpha_S * F, others where they are. Temporal: frame j at alpha_T * j.
    """
    alpha_s, alpha_t = scales_B2.double().split(1, dim=1)
    index_F = torch.arange(frames, dtype=torch.float64, device=scales_B2.device)
    spatial_BF = torch.cat([alpha_s * frames, index_F[1:].expand(len(alpha_s), -1)], dim=1)
    return spatial_BF, alpha_t * index_F


def rotary_of(transformer: WanTransformer3DModel, x_BCFHW: Tensor, scales_B2: Tensor | None) -> MethodRotary:
    """The rotary pair of a method's pass: the spatial heads' tables, with the temporal heads' as ``more``.

    Args:
        scales_B2: (alpha_S, alpha_T); None for the stock tables.
    """
    rope: Any = transformer.rope
    if scales_B2 is None:
        return MethodRotary.of(rope(x_BCFHW))
    frames, h, w = (size // side for size, side in zip(x_BCFHW.shape[2:], rope.patch_size, strict=True))
    spatial_BF, temporal_BF = positions(scales_B2.to(x_BCFHW.device), frames)
    return MethodRotary.of(time_tables(rope, spatial_BF, h, w), time_tables(rope, temporal_BF, h, w))


def give_heads_their_tables(
    transformer: WanTransformer3DModel, temporal: Sequence[Sequence[int]]
) -> list[RemovableHandle]:
    """Hooks on each block's self-attention; only there are tables of all heads held.

    Args:
        temporal: 1 for a temporal head, for each block.
    """
    blocks: list[Any] = list(transformer.blocks)
    return [
        block.attn1.register_forward_pre_hook(partial(_of_heads, tuple(row)))
        for block, row in zip(blocks, temporal, strict=True)
    ]


def _of_heads(temporal: tuple[int, ...], attention: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give each head of a block's self-attention its own table, in this method's pass."""

    def own(value: Any) -> Any:
        if not isinstance(value, MethodRotary):
            return value
        cos, sin = value.more
        spatial: Tables = (value[0], value[1])
        return for_heads(temporal, (cos.to(spatial[0].device), sin.to(spatial[0].device)), spatial)

    return tuple(own(value) for value in args)
