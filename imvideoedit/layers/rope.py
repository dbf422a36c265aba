"""Rotary positions of the plane of two streams that Φ attends over.

Shapes: L tokens, N heads, E channels of one head, C = E / 2 pairs of them, S rows of a table, h x w the token grid of
one frame.
"""

from typing import Literal

import torch
from torch import Tensor

Position = Literal["running", "aligned"]
POSITIONS: tuple[Position, ...] = ("running", "aligned")


def apply_rotary(x_BLNE: Tensor, cos_1L1E: Tensor, sin_1L1E: Tensor) -> Tensor:
    """Rotate interleaved channel pairs, with the tables of diffusers' Wan (each frequency is repeated once).

    Args:
        x_BLNE: queries or keys, split into heads.
        cos_1L1E, sin_1L1E: tables of the same L; the product is taken in their precision, or float32.

    Returns:
        A tensor of the shape and dtype of ``x_BLNE``.
    """
    dtype = torch.promote_types(cos_1L1E.dtype, torch.float32)
    cos_1L1C, sin_1L1C = cos_1L1E[..., 0::2].to(dtype), sin_1L1E[..., 1::2].to(dtype)
    pairs_BLNC2 = x_BLNE.to(dtype).unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():  # which fuses real numbers and exchanged pairs, but nothing complex or stacked
        sign_2 = 2 * torch.arange(2, device=x_BLNE.device, dtype=dtype) - 1
        turned_BLNC2 = pairs_BLNC2 * cos_1L1C[..., None] + pairs_BLNC2.flip(-1) * (sin_1L1C[..., None] * sign_2)
        return turned_BLNC2.flatten(-2).to(x_BLNE.dtype)
    # As complex numbers: one multiplication in place of four and two sums, several times faster on a CPU.
    pairs_BLNC = torch.view_as_complex(pairs_BLNC2) * torch.complex(cos_1L1C, sin_1L1C)
    return torch.view_as_real(pairs_BLNC).flatten(-2).to(x_BLNE.dtype)


def plane_table(table_SE: Tensor, split: tuple[int, int, int], h: int, w: int, position: Position) -> Tensor:
    """Rows of one rotary table for ``[target ; source]``, each h x w, all at time index 0.

    ``running``: source columns continue after the target's, as on one h x 2w image. ``aligned``: both streams
    share the columns 0..w-1. Attention depends on the positions of its tokens, not on their order, so
    concatenating the streams equals interleaving their rows on the wide image.

    Args:
        table_SE: cos or sin table; its channels are the time, height and width parts in that order.
        split: channels of the time, height and width part.

    Returns:
        ``[1, 2*h*w, 1, E]``.

    Raises:
        ValueError: the grid needs more positions than the table has rows.
    """
    columns = 2 * w if position == "running" else w
    if max(h, columns) > table_SE.shape[0]:
        raise ValueError(f"a {h}x{columns} token grid exceeds the {table_SE.shape[0]} rotary positions of the backbone")
    time_SE, height_SE, width_SE = table_SE.split(split, dim=1)
    time_hwE = time_SE[0].expand(h, w, -1)
    height_hwE = height_SE[:h, None].expand(h, w, -1)
    streams = []
    for start in (0, columns - w):
        width_hwE = width_SE[None, start : start + w].expand(h, w, -1)
        streams.append(torch.cat([time_hwE, height_hwE, width_hwE], dim=-1).flatten(0, 1))
    return torch.cat(streams)[None, :, None]
