"""Φ, the 2D operator in which the target and the source of an edit meet, frame by frame (Eq. 4 and 7).

Shapes: B batch, F frames of tokens, h x w tokens of a frame, L = F*h*w, D width.
"""

import torch
from torch import Tensor, nn

from imvideoedit.layers.attention import Attention

Grid = tuple[int, int, int]


def fold_frames(x_BLD: Tensor, grid: Grid) -> Tensor:
    """``[B, F*h*w, D] -> [B*F, h*w, D]``: time goes into the batch, so frames cannot see each other."""
    frames, height, width = grid
    return x_BLD.reshape(-1, height * width, x_BLD.shape[-1])


def unfold_frames(x_XPD: Tensor, grid: Grid) -> Tensor:
    """Inverse of :func:`fold_frames`: ``[B*F, h*w, D] -> [B, F*h*w, D]``."""
    frames, height, width = grid
    return x_XPD.reshape(-1, frames * height * width, x_XPD.shape[-1])


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

    def forward(self, x_BLD: Tensor, source_BLD: Tensor | None, grid: Grid, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Apply Φ.

        Args:
            x_BLD: without ``source_BLD``, both streams stacked on the batch as ``[target ; source]`` (2B rows), and
                both query; with it, the target stream alone, which is then the only one to query.
            source_BLD: source stream to read, or None.
            grid: tokens in time, height and width, ``(F, h, w)``.
            rotary: tables for ``[target ; source]`` of one frame, each ``[1, 2*h*w, 1, E]``.

        Returns:
            The shape of ``x_BLD``. What frame i gets depends on frame i of the two streams only.
        """
        joint = source_BLD is None
        target_BLD, source_BLD = x_BLD.chunk(2) if source_BLD is None else (x_BLD, source_BLD)
        target_XPD, source_XPD = (fold_frames(self.norm(stream), grid) for stream in (target_BLD, source_BLD))
        pair_XPD = torch.cat([target_XPD, source_XPD], dim=1)
        if not joint:
            return unfold_frames(self.attention(target_XPD, pair_XPD, rotary), grid)
        streams = self.attention(pair_XPD, pair_XPD, rotary).chunk(2, dim=1)
        return torch.cat([unfold_frames(stream, grid) for stream in streams])
