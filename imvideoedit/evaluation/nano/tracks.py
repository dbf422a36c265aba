"""Does every object move as it should? Each is searched around its exact place, frame by frame.

Legend: F frames, H W pixels.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from imvideoedit.world.render import which_thing
from imvideoedit.world.scenes import Scene

REACH = 8  # pixels searched around the exact place; an object farther away counts as lost
MARGIN = 2  # pixels around an object that are matched too, since a plain object is located by its outline alone
FOUND = 0.5  # of the difference between object and surroundings; a match with a larger error is not the object
STRIDE = 4  # only every fourth frame is searched: objects move little in between
SMALLEST = 12  # visible pixels an object must have to be searched


def motion_fidelity(edited: np.ndarray, exact: np.ndarray, scene: Scene) -> float:
    """Nearness of the objects of ``scene`` to their exact places, from 0 (lost) to 1; NaN without objects.

    Every object is matched with its outline at all shifts of up to ``REACH`` pixels. The best shift, of length s,
    counts 1 - s / ``REACH``, or 0 if even the best match is poor.

    Args:
        edited, exact: uint8 ``[F, H, W, 3]``.
        scene: the scene that ``exact`` shows.
    """
    frames = np.arange(0, len(exact), STRIDE)
    seen_FHW = which_thing(scene, frames, exact.shape[1:3])
    scores = []
    for frame, seen_HW in zip(frames, seen_FHW, strict=True):
        for number in range(1, len(scene.things) + 1):
            mask = seen_HW == number
            if mask.sum() >= SMALLEST:
                scores.append(_nearness(edited[frame], exact[frame], mask))
    return float(np.mean(scores)) if scores else float("nan")


def _nearness(edited: np.ndarray, exact: np.ndarray, mask: np.ndarray) -> float:
    top, left = np.maximum(np.argwhere(mask).min(0) - MARGIN, 0)
    bottom, right = np.argwhere(mask).max(0) + 1 + MARGIN
    patch = exact[top:bottom, left:right]
    # Differences of bytes in bytes, and their sums, below 2^24, in float32: exact and fast.
    weight = np.repeat(_grow(mask[top:bottom, left:right]).ravel(), 3).astype(np.float32)
    around = np.pad(edited, ((REACH, REACH), (REACH, REACH), (0, 0)), mode="edge")
    around = around[top : bottom + 2 * REACH, left : right + 2 * REACH]
    windows = sliding_window_view(around, patch.shape)[:, :, 0]  # [2·REACH+1, 2·REACH+1, h, w, 3]
    apart = np.maximum(windows, patch) - np.minimum(windows, patch)
    errors = apart.reshape(*apart.shape[:2], -1).astype(np.float32) @ weight / weight.sum()
    best = np.unravel_index(errors.argmin(), errors.shape)
    contrast = np.abs(patch.astype(np.float32) - _surroundings(exact, mask)).ravel() @ weight / weight.sum()
    if errors[best] > FOUND * contrast:
        return 0.0
    return max(0.0, 1 - float(np.hypot(*(np.array(best) - REACH))) / REACH)


def _grow(mask: np.ndarray) -> np.ndarray:
    """The mask, dilated by ``MARGIN`` pixels."""
    padded = np.pad(mask, MARGIN)
    return np.any(sliding_window_view(padded, (2 * MARGIN + 1, 2 * MARGIN + 1)), axis=(2, 3))


def _surroundings(exact: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean colour of the pixels outside the object."""
    return exact[~mask].astype(np.float32).mean(0)
