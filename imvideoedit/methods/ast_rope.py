"""AST-RoPE (FFP-300K, Sec. 4.2): positions in time that depend on the source, other for spatial and temporal heads.

Shapes: B batch, C channels, F latent frames, H W latent pixels, N heads.
"""

from collections.abc import Callable
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


def rotary_of(
    transformer: WanTransformer3DModel, x_BCFHW: Tensor, scales_B2: Tensor | None, temporal_LN: Tensor | None
) -> MethodRotary | Callable[[int], MethodRotary]:
    """The rotary pair of a method's pass, or what gives each block its own.

    The block's pair is the spatial heads' tables, ``more`` are the temporal heads'. Which heads those are is told
    with them, as an argument, so that all blocks compile as one.

    Args:
        scales_B2: (alpha_S, alpha_T); None for the stock tables.
        temporal_LN: true for a temporal head, of each block; only with scales.
    """
    rope: Any = transformer.rope
    if scales_B2 is None or temporal_LN is None:
        return MethodRotary.of(rope(x_BCFHW))
    frames, h, w = (size // side for size, side in zip(x_BCFHW.shape[2:], rope.patch_size, strict=True))
    spatial_BF, temporal_BF = positions(scales_B2.to(x_BCFHW.device), frames)
    spatial, temporal = time_tables(rope, spatial_BF, h, w), time_tables(rope, temporal_BF, h, w)
    chosen_LN = temporal_LN.to(x_BCFHW.device)
    return lambda index: MethodRotary.of(spatial, temporal, chosen_LN[index])


def give_heads_their_tables(transformer: WanTransformer3DModel) -> list[RemovableHandle]:
    """Hooks on each block's self-attention; only there are tables of all heads held."""
    blocks: list[Any] = list(transformer.blocks)
    return [block.attn1.register_forward_pre_hook(_of_heads) for block in blocks]


def _of_heads(attention: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give each head of a block's self-attention its own table, in this method's pass."""

    def own(value: Any) -> Any:
        if not isinstance(value, MethodRotary):
            return value
        chosen_N, cos, sin = (each.to(value[0].device) for each in (value.heads_N, *value.more))
        spatial: Tables = (value[0], value[1])
        return for_heads(chosen_N, (cos, sin), spatial)

    return tuple(own(value) for value in args)
