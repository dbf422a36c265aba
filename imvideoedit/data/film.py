"""Clips made from still images by one virtual camera and by moving pieces of the images themselves.

A pair of stills shows no movement, so an adapter that sees stills alone never sees how an edit follows what moves. Here
a still becomes a clip: the view pans and zooms, and round pieces of the image travel over it. All of it is one map from
a pixel of the clip to a point of the still, so what is filmed alike, such as source and target, stays aligned to the
pixel.

Shapes: F frames, H W pixels of the still, h w of the clip.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

FINER = 2  # samples of a pixel along each side, averaged
PAN = 0.012  # of the still's side in a frame, at most
ZOOM = 0.015  # factor in a frame, at most
TRAVEL = 0.024  # of a piece, of the still's side in a frame, at most
PIECES = 3
CHANGED = 8  # grey levels


@dataclass(frozen=True)
class Film:
    """Where each pixel of a clip comes from.

    Args:
        points: x and y in the still for each sample of the clip, ``[F, h * FINER, w * FINER, 2]`` float32; the still
            spans [0, 1] along each side, and is mirrored beyond.
    """

    points: np.ndarray

    def of(self, still_HWC: np.ndarray) -> np.ndarray:
        """The clip of a still, uint8 ``[F, h, w, C]``.

        Args:
            still_HWC: uint8.
        """
        frames = len(self.points)
        image = torch.from_numpy(np.ascontiguousarray(still_HWC)).permute(2, 0, 1).float()
        image = image.expand(frames, *image.shape)
        grid = torch.from_numpy(self.points) * 2 - 1
        sampled = F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)
        return F.avg_pool2d(sampled, FINER).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def draw_film(
    rng: np.random.Generator,
    frames: int,
    size: tuple[int, int],
    changed_HW: np.ndarray | None = None,
    still: bool = False,
) -> Film:
    """A random film: about the whole still in its first frame, then a moving view and moving pieces.

    Args:
        size: height and width of the clip.
        changed_HW: bool; most first pieces are taken from there, so that what is edited moves.
        still: nothing moves.
    """
    time = np.arange(frames, dtype=np.float32) * (not still)
    view = _view(rng, time, size)
    points = view.copy()
    for number in range(int(rng.integers(PIECES + 1))):
        near = changed_HW if number == 0 and rng.random() < 0.7 else None
        _move_piece(rng, time, view, points, _centre(rng, near))
    return Film(points)


def difference(first_HWC: np.ndarray, second_HWC: np.ndarray) -> np.ndarray:
    """Where two images differ by more than ``CHANGED`` grey levels in a channel, bool ``[H, W]``."""
    return np.abs(first_HWC.astype(np.int16) - second_HWC).max(-1) > CHANGED


def _view(rng: np.random.Generator, time_F: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Points of the still that a panning and zooming camera sees."""
    height, width = (side * FINER for side in size)
    scale = rng.uniform(0.85, 1.0)
    centre = 0.5 + rng.uniform(-0.5, 0.5, 2) * (1 - scale)
    pan = rng.uniform(-PAN, PAN, 2) * (rng.random() < 0.5)
    rate = rng.uniform(-ZOOM, ZOOM) * (rng.random() < 0.4)
    side_F = scale * np.exp(rate * time_F)
    y = (np.arange(height) + 0.5) / height - 0.5
    x = (np.arange(width) + 0.5) / width - 0.5
    points = np.stack(np.broadcast_arrays(x[None, None], y[None, :, None]), -1) * side_F[:, None, None, None]
    return (points + (centre + time_F[:, None] * pan)[:, None, None]).astype(np.float32)


def _centre(rng: np.random.Generator, near_HW: np.ndarray | None) -> np.ndarray:
    """A point of the still: one of those marked, or any."""
    if near_HW is None or not near_HW.any():
        return rng.uniform(0.1, 0.9, 2)
    y, x = np.argwhere(near_HW)[rng.integers(np.count_nonzero(near_HW))]
    return (np.array([x, y]) + 0.5) / near_HW.shape[::-1]


def _move_piece(
    rng: np.random.Generator, time_F: np.ndarray, view: np.ndarray, points: np.ndarray, centre: np.ndarray
) -> None:
    """Let an ellipse of the still travel over the clip; half of them leave another part of the still behind."""
    radius = rng.uniform(0.1, 0.28, 2).astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    swing = rng.uniform(0, 0.15, 2) * (rng.random() < 0.4)
    path_F2 = time_F[:, None] * along * rng.uniform(0, TRAVEL)
    path_F2 = path_F2 + swing * np.sin(rng.uniform(0.1, 0.3) * time_F)[:, None]
    centre = centre.astype(np.float32)
    if rng.random() < 0.5:
        left = _inside(view, centre, radius) & (np.abs(path_F2).max() > 0)
        points[left] = view[left] + rng.uniform(-0.4, 0.4, 2).astype(np.float32)
    moved = view - path_F2[:, None, None].astype(np.float32)
    there = _inside(moved, centre, radius)
    points[there] = moved[there]


def _inside(points: np.ndarray, centre: np.ndarray, radius: np.ndarray) -> np.ndarray:
    return (((points - centre) / radius) ** 2).sum(-1) < 1
