"""Frames as metrics read them: one or a few at a time, for videos of any length.

Legend: N frames, H W pixels, D channels.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Frames = Iterable[np.ndarray]
"""uint8 ``[H, W, 3]`` frames that can be iterated repeatedly: an array ``[F, H, W, 3]``, or a video on disk."""

BATCH = 8  # frames per forward pass of a network
T = TypeVar("T")


def to_float(frame_HWC: np.ndarray) -> Tensor:
    """A frame as float ``[3, H, W]`` in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frame_HWC)).permute(2, 0, 1).float() / 255


def batches(frames: Frames, size: int = BATCH) -> Iterator[Tensor]:
    """Float ``[N, 3, H, W]`` in [0, 1], at most ``size`` frames each."""
    batch: list[Tensor] = []
    for frame_HWC in frames:
        batch.append(to_float(frame_HWC))
        if len(batch) == size:
            yield torch.stack(batch)
            batch = []
    if batch:
        yield torch.stack(batch)


def features(frames: Frames, images: Callable[[Tensor], Tensor]) -> Tensor:
    """A network's features of every frame, ``[N, D]``."""
    return torch.cat([images(batch) for batch in batches(frames)])


def pairs(frames: Iterable[T], step: int = 1) -> Iterator[tuple[T, T]]:
    """Neighbouring pairs of every ``step``-th item."""
    return pairwise(item for place, item in enumerate(frames) if place % step == 0)


def mean(values: Iterable[float]) -> float:
    """The mean; NaN without values, as for a video of one frame."""
    known = list(values)
    return float(np.mean(known)) if known else float("nan")
