"""Flicker and temporal consistency."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from imvideoedit.evaluation.metrics.flow import Flow, visible, warp
from imvideoedit.evaluation.metrics.frames import Frames, mean, to_float


def neighbour_similarity(features_ND: Tensor) -> float:
    """Mean cosine of neighbouring frames, clamped at 0 (CLIP and DINO temporal consistency of EditVerseBench).

    Args:
        features_ND: unit vectors.

    Returns:
        0 to 1; NaN for a single frame.
    """
    return mean((features_ND[1:] * features_ND[:-1]).sum(1).clamp(min=0).tolist())


def warped_error(edited: Frames, source: Frames, flow: Flow) -> float:
    """Flow-compensated flicker (Lai et al. 2018, equation 8): root mean square of V_t - warp(V_t-1), in grey levels.

    The flow is the source's, since an edit should move as its source does. Only pixels count where forward and backward
    flow agree. 0 for a video whose pixels keep their colours along the source's motion; NaN if no pixels are left.

    Raises:
        ValueError: the videos differ in size.
    """
    errors = []
    for was, now in pairwise(_both(edited, source)):
        backward, forward = flow(now[1], was[1]), flow(was[1], now[1])
        seen = visible(backward, forward)
        if seen.any():
            error = ((now[0] - warp(was[0], backward)[0]) ** 2).mean(0)[seen]
            errors.append(255 * float(error.mean().sqrt()))
    return mean(errors)


def flicker(video: Frames) -> float:
    """Mean absolute difference of neighbouring frames, in grey levels, without motion compensation."""
    return mean(float(np.abs(now.astype(np.int16) - was).mean()) for was, now in pairwise(video))


def _both(edited: Frames, source: Frames) -> Iterator[Tensor]:
    for ours, theirs in zip(edited, source, strict=False):
        if ours.shape != theirs.shape:
            raise ValueError(f"the edited frames are {ours.shape[:2]}, the source's {theirs.shape[:2]}")
        yield torch.stack([to_float(ours), to_float(theirs)])
