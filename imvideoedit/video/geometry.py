"""Between a video's own size and the model's, and between frames and tensors."""

import math
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from imvideoedit.common.errors import UserError

AREA_WEIGHT = 0.25  # how much a smaller area counts against a closer aspect ratio, both as logarithms
RESIZE_CHUNK = 8  # frames resized at a time


def fit_size(height: int, width: int, max_area: int, multiple: int) -> tuple[int, int]:
    """The (height, width) closest to a frame's aspect ratio among those the model takes.

    Both are multiples of ``multiple``, their product is at most ``max_area`` and, as far as the ratio allows, near it.

    Raises:
        UserError: ``max_area`` is below one square of ``multiple`` pixels.
    """
    if max_area < multiple * multiple:
        raise UserError(f"an area of {max_area} pixels is less than the smallest frame, {multiple}x{multiple}")
    aspect = width / height
    choices = []
    for tall in range(multiple, max_area // multiple + 1, multiple):
        widest = max_area // tall // multiple * multiple
        wide = min(max(round(tall * aspect / multiple) * multiple, multiple), widest)
        loss = abs(math.log(wide / tall / aspect)) + AREA_WEIGHT * math.log(max_area / (tall * wide))
        choices.append((loss, tall, wide))
    _, tall, wide = min(choices)
    return tall, wide


def resized(frames: Iterable[np.ndarray], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Frames, uint8 ``[H, W, 3]``, at another height and width: bicubic with antialiasing, or as they are."""
    for part in in_parts(frames, RESIZE_CHUNK, RESIZE_CHUNK):
        if part[0].shape[:2] == size:
            yield from part
            continue
        part_FCHW = torch.from_numpy(np.stack(part)).permute(0, 3, 1, 2).float()
        part_FCHW = functional.interpolate(part_FCHW, size, mode="bicubic", antialias=True)
        yield from part_FCHW.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def in_parts(frames: Iterable[np.ndarray], first: int, others: int) -> Iterator[list[np.ndarray]]:
    """Lists of ``first``, then of ``others`` frames; the last one may be shorter."""
    remaining = iter(frames)
    part = list(islice(remaining, first))
    while part:
        yield part
        part = list(islice(remaining, others))


def to_model(part: list[np.ndarray]) -> Tensor:
    """uint8 frames ``[H, W, 3]`` to ``[1, 3, F, H, W]`` in [-1, 1]."""
    return torch.from_numpy(np.stack(part)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def from_model(video_BCFHW: Tensor) -> np.ndarray:
    """A video of one sample in [-1, 1] to uint8 ``[F, H, W, 3]``."""
    return ((video_BCFHW[0] + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 3, 0).cpu().numpy()


def pad_to_groups(part: list[np.ndarray], group: int, with_first: bool) -> list[np.ndarray]:
    """Repeat the last frame until the groups are complete; the video's first frame is a group of its own."""
    return part + part[-1:] * (-(len(part) - with_first) % group)
