"""FreeProp's self-distillation (FFP-300K, Sec. 4.3): the student's features move like those of an identity pass.

Shapes: B batch, F latent frames, h w tokens of a frame, N tokens of a frame after pooling, D width.
"""

import torch
from torch import Tensor
from torch.nn import functional

POOLED = 2  # side of the squares of tokens that are averaged
DIRECTIONS = 1e-6  # least norm of a feature


def pooled(hidden_BLD: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Features of a block's output as unit vectors, ``[B, F, N, D]`` float32.

    Args:
        grid: tokens in time, height and width.
    """
    frames, h, w = grid
    x = hidden_BLD.float().reshape(len(hidden_BLD) * frames, h, w, -1).permute(0, 3, 1, 2)
    x = functional.avg_pool2d(x, (min(POOLED, h), min(POOLED, w)))
    return functional.normalize(x.flatten(2).transpose(1, 2), dim=-1, eps=DIRECTIONS).unflatten(0, (-1, frames))


def motion_loss(student_BFND: Tensor, teacher_BFND: Tensor) -> Tensor:
    """Mean difference of the similarities between tokens of different frames, ``[B]``; 0 for one frame.

    L_motion = 1 / (F (F - 1)) sum over i != j of mean |G_ij - G'_ij|, with G the inner products of all tokens.
    """
    frames = student_BFND.shape[1]
    total = student_BFND.new_zeros(len(student_BFND))
    # Row by row of frames, so that the inner products of all with all are never held.
    for i in range(frames):
        others = [j for j in range(frames) if j != i]
        if others:
            apart = _products(student_BFND, i, others) - _products(teacher_BFND, i, others)
            total = total + apart.abs().flatten(1).mean(1) / frames
    return total


def consistency_loss(student_BFND: Tensor, teacher_BFND: Tensor) -> Tensor:
    """How otherwise frames drift from the first, ``[B]``: L_MMD = sum over i >= 2 of |d_i - d'_i| (Eq. 4)."""
    with torch.no_grad():
        bandwidth_B = _bandwidth(teacher_BFND)
    apart = drift(student_BFND, bandwidth_B) - drift(teacher_BFND, bandwidth_B)
    return apart[:, 1:].abs().sum(1)


def drift(features_BFND: Tensor, bandwidth_B: Tensor) -> Tensor:
    """d_i = MMD²(P_1, P_i), ``[B, F]``: of the rows of z_1 z_1ᵀ and of z_1 z_iᵀ under a Gaussian kernel."""
    first = _products(features_BFND, 0, [0])[:, 0]
    frames = features_BFND.shape[1]
    own = [_products(features_BFND, 0, [i])[:, 0] for i in range(frames)]
    within = _kernel(first, first, bandwidth_B)
    return torch.stack(
        [within + _kernel(rows, rows, bandwidth_B) - 2 * _kernel(first, rows, bandwidth_B) for rows in own], dim=1
    )


def _products(features_BFND: Tensor, i: int, others: list[int]) -> Tensor:
    """Inner products of frame i's tokens with those of other frames, ``[B, others, N, N]``."""
    return features_BFND[:, i, None] @ features_BFND[:, others].transpose(-1, -2)


def _kernel(one_BNM: Tensor, other_BNM: Tensor, bandwidth_B: Tensor) -> Tensor:
    """Mean of exp(-|x - y|² / bandwidth) over all pairs of rows, the diagonal among them."""
    return torch.exp(-_square_distances(one_BNM, other_BNM) / bandwidth_B[:, None, None]).mean((1, 2))


def _square_distances(one_BNM: Tensor, other_BNM: Tensor) -> Tensor:
    # Without a root, whose gradient at zero is infinite.
    squares = one_BNM.square().sum(-1)[:, :, None] + other_BNM.square().sum(-1)[:, None]
    return (squares - 2 * one_BNM @ other_BNM.transpose(1, 2)).clamp(min=0)


def _bandwidth(teacher_BFND: Tensor) -> Tensor:
    """Median squared distance between the teacher's rows of all frames' relations to the first, ``[B]``."""
    rows = torch.cat([_products(teacher_BFND, 0, [i])[:, 0] for i in range(teacher_BFND.shape[1])], dim=1)
    first = rows[:, : teacher_BFND.shape[2]]
    return _square_distances(first, rows).flatten(1).median(dim=1).values.clamp(min=1e-6)
