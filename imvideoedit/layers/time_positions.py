"""Rotary tables whose positions in time are real numbers, other for each sample and for two kinds of heads.

Shapes: B batch, F frames, h w tokens of a frame, L = F * h * w tokens, N heads, E width of a head.
"""

import torch
from torch import Tensor, nn

THETA = 10000.0  # of Wan's rotary positions; a test compares the tables with diffusers'

Tables = tuple[Tensor, Tensor]
"""``(cos, sin)``, each ``[B or 1, L, 1 or N, E]`` float32."""


def time_tables(rope: nn.Module, positions_BF: Tensor, h: int, w: int) -> Tables:
    """Tables with the given positions in time, and the usual ones in height and width: ``[B, L, 1, E]``.

    With positions 0, 1, 2, ... they are diffusers' tables bit for bit: both are computed in float64.

    Args:
        rope: of the transformer, a ``WanRotaryPosEmbed``.
        positions_BF: in latent frames; gradients flow into them.
    """
    own = _any(rope)
    frames, width = positions_BF.shape[1], own.t_dim
    exponents = torch.arange(0, width, 2, dtype=torch.float64, device=positions_BF.device) / width
    angles_BFE = positions_BF.double()[..., None] * (1.0 / THETA**exponents)
    tables = []
    for wave_BFE, stock in ((angles_BFE.cos(), own.freqs_cos), (angles_BFE.sin(), own.freqs_sin)):
        _, rows, columns = stock.to(wave_BFE.device).split([width, own.h_dim, own.w_dim], dim=1)
        batch = len(wave_BFE)
        time = wave_BFE.repeat_interleave(2, dim=2).float()[:, :, None, None]
        parts = [
            time.expand(batch, frames, h, w, -1),
            rows[:h, None].expand(batch, frames, h, w, -1),
            columns[None, :w].expand(batch, frames, h, w, -1),
        ]
        tables.append(torch.cat(parts, dim=-1).reshape(batch, frames * h * w, 1, -1))
    return tables[0], tables[1]


def for_heads(chosen_N: Tensor, first: Tables, second: Tables) -> Tables:
    """Tables of each head, ``[B, L, N, E]``: the first where ``chosen_N`` is true, the second elsewhere."""
    cos, sin = (torch.where(chosen_N[:, None], one, other) for one, other in zip(first, second, strict=True))
    return cos, sin


def _any(module):
    """The module for the type checker, which does not see diffusers' attributes."""
    return module
