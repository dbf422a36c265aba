"""Clips made from still images by one virtual camera and by moving pieces of the images themselves.

A pair of stills shows no movement, so an adapter that sees stills alone never sees how an edit follows what moves. Here
a still becomes a clip: the view pans and zooms, and round pieces of the image travel over it. All of it is one map from
a pixel of the clip to a point of the still, so what is filmed alike, such as source and target, stays aligned to the
pixel.

Shapes: F frames, H W pixels of the still, h w of the clip.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

FINER = 2  # samples of a pixel along each side, averaged
PAN = 0.012  # of the still's side in a frame, at most
ZOOM = 0.015  # factor in a frame, at most
TRAVEL = 0.024  # of a piece, of the still's side in a frame, at most
PIECES = 3
CHANGED = 8  # grey levels
TOGETHER = 16  # films developed at a time: each sample of a clip takes some 100 bytes


@dataclass(frozen=True)
class Piece:
    """An ellipse of the still that travels over the clip.

    Args:
        centre, radius: x and y, ``[2]``.
        path_F2: where it is, from its place.
        left: from where in the still its place is filled, ``[2]``; None where it stays there as well.
    """

    centre: np.ndarray
    radius: np.ndarray
    path_F2: np.ndarray
    left: np.ndarray | None


@dataclass(frozen=True)
class Film:
    """Where each pixel of a clip comes from; the still spans [0, 1] along each side, and is mirrored beyond.

    Args:
        centre_F2, side_F: of the view that the camera has.
        pieces: at most ``PIECES``, the later ones before the earlier ones.
    """

    centre_F2: np.ndarray
    side_F: np.ndarray
    pieces: tuple[Piece, ...] = ()

    def of(self, still_HWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The clip of a still, uint8 ``[F, h, w, C]``.

        Args:
            still_HWC: uint8.
            size: h and w.
        """
        still = torch.from_numpy(np.ascontiguousarray(still_HWC))
        return developed([self], still[None], size)[0].numpy()


def developed(films: Sequence[Film], stills_BHWC: Tensor, size: tuple[int, int]) -> Tensor:
    """The clips of stills on their device, uint8 ``[B, F, h, w, C]``.

    Args:
        films: of one length.
        stills_BHWC: uint8.
        size: h and w.
    """
    clips = []
    for start in range(0, len(films), TOGETHER):
        image = stills_BHWC[start : start + TOGETHER].permute(0, 3, 1, 2).float()
        grid = points(films[start : start + TOGETHER], size, image.device) * 2 - 1
        # The frames lie below each other, so that the still is not copied for each.
        sampled = F.grid_sample(image, grid.flatten(1, 2), padding_mode="reflection", align_corners=False)
        pixels = F.avg_pool2d(sampled, FINER).round().byte().unflatten(2, (-1, size[0]))
        clips.append(pixels.permute(0, 2, 3, 4, 1).contiguous())
    return torch.cat(clips)


def points(films: Sequence[Film], size: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """x and y in the still for each sample of the clips, ``[B, F, h * FINER, w * FINER, 2]``."""

    def stacked(arrays: Sequence[np.ndarray]) -> Tensor:
        """``[B, F or 1, 1, 1, 1 or 2]``"""
        values = torch.from_numpy(np.stack(arrays).astype(np.float32)).to(device)
        return values.reshape(len(films), -1, 1, 1, values.shape[-1])

    y, x = ((torch.arange(n * FINER, device=device) + 0.5) / (n * FINER) - 0.5 for n in size)
    plane = torch.stack(torch.broadcast_tensors(x[None], y[:, None]), -1)
    view = plane * stacked([film.side_F[:, None] for film in films]) + stacked([film.centre_F2 for film in films])
    seen = view
    nowhere = Piece(np.full(2, 9.0), np.ones(2), np.zeros((1, 2)), None)  # far outside
    for number in range(max(len(film.pieces) for film in films)):
        pieces = [film.pieces[number] if number < len(film.pieces) else nowhere for film in films]
        frames = max(len(piece.path_F2) for piece in pieces)
        path = stacked([np.broadcast_to(piece.path_F2, (frames, 2)) for piece in pieces])
        centre, radius = (stacked([getattr(piece, name) for piece in pieces]) for name in ("centre", "radius"))
        left = stacked([np.zeros(2) if piece.left is None else piece.left for piece in pieces])
        leaves = (left != 0).any(-1, keepdim=True)
        seen = torch.where(_inside(view, centre, radius) & leaves, view + left, seen)
        moved = view - path
        seen = torch.where(_inside(moved, centre, radius), moved, seen)
    return seen


def draw_film(rng: np.random.Generator, frames: int, changed_HW: np.ndarray | None = None) -> Film:
    """A random film: about the whole still in its first frame, then a moving view and moving pieces.

    Args:
        changed_HW: bool; most first pieces are taken from there, so that what is edited moves.
    """
    time_F = np.arange(frames, dtype=np.float32)
    scale = rng.uniform(0.85, 1.0)
    centre = 0.5 + rng.uniform(-0.5, 0.5, 2) * (1 - scale)
    pan = rng.uniform(-PAN, PAN, 2) * (rng.random() < 0.5)
    rate = rng.uniform(-ZOOM, ZOOM) * (rng.random() < 0.4)
    pieces = []
    for number in range(int(rng.integers(PIECES + 1))):
        near = changed_HW if number == 0 and rng.random() < 0.7 else None
        pieces.append(_piece(rng, time_F, _centre(rng, near)))
    return Film(centre + time_F[:, None] * pan, scale * np.exp(rate * time_F), tuple(pieces))


def difference(first_HWC: np.ndarray, second_HWC: np.ndarray) -> np.ndarray:
    """Where two images differ by more than ``CHANGED`` grey levels in a channel, bool ``[H, W]``."""
    return np.abs(first_HWC.astype(np.int16) - second_HWC).max(-1) > CHANGED


def _centre(rng: np.random.Generator, near_HW: np.ndarray | None) -> np.ndarray:
    """A point of the still: one of those marked, or any."""
    if near_HW is None or not near_HW.any():
        return rng.uniform(0.1, 0.9, 2)
    y, x = np.argwhere(near_HW)[rng.integers(np.count_nonzero(near_HW))]
    return (np.array([x, y]) + 0.5) / near_HW.shape[::-1]


def _piece(rng: np.random.Generator, time_F: np.ndarray, centre: np.ndarray) -> Piece:
    """Half of them leave another part of the still behind."""
    radius = rng.uniform(0.1, 0.28, 2)
    angle = rng.uniform(0, 2 * np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    swing = rng.uniform(0, 0.15, 2) * (rng.random() < 0.4)
    path_F2 = time_F[:, None] * along * rng.uniform(0, TRAVEL)
    path_F2 = path_F2 + swing * np.sin(rng.uniform(0.1, 0.3) * time_F)[:, None]
    left = rng.uniform(-0.4, 0.4, 2) if rng.random() < 0.5 else None
    return Piece(centre, radius, path_F2, left if path_F2.any() else None)


def _inside(points: Tensor, centre: Tensor, radius: Tensor) -> Tensor:
    """Which points lie in an ellipse, with a last dimension of 1."""
    away = ((points - centre) / radius).square()
    return away[..., :1] + away[..., 1:] < 1
