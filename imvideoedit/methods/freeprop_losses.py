"""FreeProp's self-distillation (FFP-300K, Sec. 4.3): the student's features move like those of an identity pass.

Shapes: B batch, F latent frames, h w tokens of a frame, N tokens of a frame after pooling, D width.
"""

import torch
from torch import Tensor
from torch.nn import functional

POOLED = 2  # side of the squares of tokens that are averaged
DIRECTIONS = 1e-6  # least norm of a feature
PRODUCTS = 2**22  # of tokens of one sample, at a time


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
    frames, tokens = student_BFND.shape[1:3]
    if frames == 1:
        return student_BFND.new_zeros(len(student_BFND))
    # Some rows of frames at a time: of a long video all products, and their passing copies, take gigabytes.
    step = max(1, PRODUCTS // (frames * tokens**2))
    parts = [_apart(student_BFND, teacher_BFND, start, step) for start in range(0, frames, step)]
    own = torch.eye(frames, dtype=torch.bool, device=student_BFND.device)
    return torch.cat(parts, dim=1).masked_fill(own, 0).sum((1, 2)) / (frames * (frames - 1))


def _apart(student_BFND: Tensor, teacher_BFND: Tensor, start: int, step: int) -> Tensor:
    """Mean |G_ij - G'_ij| of ``step`` frames i with all frames j, ``[B, step, F]``."""
    frames, tokens = student_BFND.shape[1:3]
    some, others = (z[:, start : start + step].flatten(1, 2) @ z.flatten(1, 2).mT for z in (student_BFND, teacher_BFND))
    return (some - others).abs().unflatten(2, (frames, tokens)).unflatten(1, (-1, tokens)).mean((2, 4))


def consistency_loss(student_BFND: Tensor, teacher_BFND: Tensor) -> Tensor:
    """How otherwise frames drift from the first, ``[B]``: L_MMD = sum over i >= 2 of |d_i - d'_i| (Eq. 4)."""
    with torch.no_grad():
        bandwidth_B = _bandwidth(teacher_BFND)
    apart = drift(student_BFND, bandwidth_B) - drift(teacher_BFND, bandwidth_B)
    return apart[:, 1:].abs().sum(1)


def drift(features_BFND: Tensor, bandwidth_B: Tensor) -> Tensor:
    """d_i = MMD²(P_1, P_i), ``[B, F]``: of the rows of z_1 z_1ᵀ and of z_1 z_iᵀ under a Gaussian kernel."""
    rows_BFNN = _relations(features_BFND)
    first_BFNN = rows_BFNN[:, :1]
    own, within, between = (
        _kernel(*pair, bandwidth_B)
        for pair in ((first_BFNN, first_BFNN), (rows_BFNN, rows_BFNN), (first_BFNN, rows_BFNN))
    )
    return own + within - 2 * between


def _relations(features_BFND: Tensor) -> Tensor:
    """z_1 z_iᵀ, the inner products of the first frame's tokens with those of each frame, ``[B, F, N, N]``."""
    return features_BFND[:, :1] @ features_BFND.mT


def _kernel(one_BFNM: Tensor, other_BFNM: Tensor, bandwidth_B: Tensor) -> Tensor:
    """Mean of exp(-|x - y|² / bandwidth) over all pairs of rows, the diagonal among them, ``[B, F]``."""
    return torch.exp(-_square_distances(one_BFNM, other_BFNM) / bandwidth_B[:, None, None, None]).mean((-2, -1))


def _square_distances(one_BFNM: Tensor, other_BFNM: Tensor) -> Tensor:
    # Without a root, whose gradient at zero is infinite.
    squares = one_BFNM.square().sum(-1)[..., None] + other_BFNM.square().sum(-1)[..., None, :]
    return (squares - 2 * one_BFNM @ other_BFNM.mT).clamp(min=0)


def _bandwidth(teacher_BFND: Tensor) -> Tensor:
    """Median squared distance between the teacher's rows of all frames' relations to the first, ``[B]``."""
    rows_BFNN = _relations(teacher_BFND)
    apart = _square_distances(rows_BFNN[:, :1], rows_BFNN)
    return apart.flatten(1).median(dim=1).values.clamp(min=1e-6)
