"""Φ, the 2D operator in which the target attends to the source, frame by frame (Eq. 4 and 7).

Shapes: B batch, F frames of tokens, h x w tokens of a frame, L = F*h*w, D width.
"""

import torch
from torch import Tensor, nn

from imvideoedit.layers.attention import Attention, KeysValues

Grid = tuple[int, int, int]
Rotary = tuple[Tensor, Tensor]


def fold_frames(x_BLD: Tensor, grid: Grid) -> Tensor:
    """``[B, F*h*w, ...] -> [B*F, h*w, ...]``: time goes into the batch, so frames cannot see each other."""
    frames, height, width = grid
    return x_BLD.reshape(-1, height * width, *x_BLD.shape[2:])


def unfold_frames(x_XPD: Tensor, grid: Grid) -> Tensor:
    """Inverse of :func:`fold_frames`: ``[B*F, h*w, ...] -> [B, F*h*w, ...]``."""
    frames, height, width = grid
    return x_XPD.reshape(-1, frames * height * width, *x_XPD.shape[2:])


class SpatialDifference(nn.Module):
    """Φ(LN(x)): layer norm, then one self-attention over the 2*h*w tokens of target and source of one frame.

    Args:
        attention: inherits the weights of the block's self-attention.
        norm: LN₁ or LN₂ of the paper; ``nn.Identity()`` for an operator that reads its input as it is.
    """

    def __init__(self, attention: Attention, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.attention = attention

    def source_keys_values(self, source_BLD: Tensor, grid: Grid, rotary: Rotary) -> KeysValues:
        """Keys and values ``[B, L, N, E]`` of a source that does not query; the same for any target.

        Args:
            grid: tokens in time, height and width, ``(F, h, w)``.
            rotary: tables for ``[target ; source]`` of one frame, each ``[1, 2*h*w, 1, E]``.
        """
        _, rows = _halves(rotary)
        key_XPNE, value_XPNE = self.attention.keys_values(fold_frames(self.norm(source_BLD), grid), rows)
        return unfold_frames(key_XPNE, grid), unfold_frames(value_XPNE, grid)

    def forward(self, x_BLD: Tensor, source: KeysValues | Tensor | None, grid: Grid, rotary: Rotary) -> Tensor:
        """Apply Φ.

        Args:
            x_BLD: without ``source``, both streams stacked on the batch as ``[target ; source]`` (2B rows), and both
                query; with it, the target stream alone, which is then the only one to query.
            source: the source's :meth:`source_keys_values`; or its tokens ``[B, L, D]``, of which they are then
                computed together with the target's, in one product each; or None.
            grid, rotary: see there.

        Returns:
            The shape of ``x_BLD``. What frame i gets depends on frame i of the two streams only.
        """
        streams_XPD = [fold_frames(self.norm(stream), grid) for stream in x_BLD.chunk(2 if source is None else 1)]
        if source is None:
            pair_XPD = torch.cat(streams_XPD, dim=1)
            mixed_XPD = self.attention(pair_XPD, self.attention.keys_values(pair_XPD, rotary), rotary)
            return torch.cat([unfold_frames(stream, grid) for stream in mixed_XPD.chunk(2, dim=1)])
        rows, _ = _halves(rotary)
        if isinstance(source, Tensor):
            pair_XPD = torch.cat([streams_XPD[0], fold_frames(self.norm(source), grid)], dim=1)
            attended = self.attention.keys_values(pair_XPD, rotary)
            return unfold_frames(self.attention(streams_XPD[0], attended, rows), grid)
        own, kept = self.attention.keys_values(streams_XPD[0], rows), [fold_frames(part, grid) for part in source]
        key_XPNE, value_XPNE = (torch.cat(pair, dim=1) for pair in zip(own, kept, strict=True))
        return unfold_frames(self.attention(streams_XPD[0], (key_XPNE, value_XPNE), rows), grid)


def _halves(rotary: Rotary) -> tuple[Rotary, Rotary]:
    """The tables' rows of the target and of the source."""
    (cos_target, cos_source), (sin_target, sin_source) = (table.chunk(2, dim=1) for table in rotary)
    return (cos_target, sin_target), (cos_source, sin_source)
