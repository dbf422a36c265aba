"""Where a clip is painted anew, and what the painter is shown of it.

Shapes: F frames, H W pixels.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

GREY = 127  # of what is to be painted, in VACE's control


def region_of(mask_FHW: np.ndarray, kind: str, erosion: int) -> np.ndarray:
    """The region of a local edit: uint8 ``[F, H, W]``, 0 or 255.

    A removed object leaves nothing of its outline: the region is the box around it. Of a swap or a change it is the
    mask, eroded, so that what is painted stays inside; a frame whose mask would vanish keeps it.

    Args:
        erosion: pixels.
    """
    frames = (_box(mask) if kind == "remove" else _eroded(mask, erosion) for mask in mask_FHW > 127)
    return np.stack([frame.astype(np.uint8) * 255 for frame in frames])


def control_of(video_FHWC: np.ndarray, region_FHW: np.ndarray) -> np.ndarray:
    """The clip, grey where it is to be painted: uint8 ``[F, H, W, 3]``."""
    return np.where(region_FHW[..., None] > 127, np.uint8(GREY), video_FHWC)


def _box(mask_HW: np.ndarray) -> np.ndarray:
    box = np.zeros_like(mask_HW)
    rows, columns = np.nonzero(mask_HW)
    if len(rows):
        box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    return box


def _eroded(mask_HW: np.ndarray, pixels: int) -> np.ndarray:
    if pixels == 0:
        return mask_HW
    padded = np.pad(mask_HW, pixels)
    smaller = np.asarray(sliding_window_view(padded, (2 * pixels + 1, 2 * pixels + 1)).all(axis=(2, 3)))
    return smaller if smaller.any() else mask_HW
