"""Frames at display size: small ones enlarged without blur, large ones reduced."""

import numpy as np
from PIL import Image

SMALL, LARGE = 320, 720  # pixels of the longer side: smaller frames are enlarged, larger videos reduced


def enlarged(frame_HWC: np.ndarray) -> np.ndarray:
    """A small frame with every pixel as a square of pixels, so that browsers do not blur it; others as they are."""
    times = max(SMALL // max(frame_HWC.shape[:2]), 1)
    return frame_HWC.repeat(times, axis=0).repeat(times, axis=1)


def thumbnail(frame_HWC: np.ndarray, side: int = 160) -> np.ndarray:
    """The frame with a longer side of at most ``side`` pixels, or of a small one an enlarged copy."""
    image = Image.fromarray(enlarged(frame_HWC))
    image.thumbnail((side, side))
    return np.array(image)


def shown_size(height: int, width: int) -> tuple[int, int]:
    """Height and width at which a frame is shown in a video; even."""
    side = max(height, width)
    scale = max(SMALL // side, 1) if side <= LARGE else LARGE / side
    even_height, even_width = (max(round(length * scale / 2), 1) * 2 for length in (height, width))
    return even_height, even_width


def fitted(frame_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    larger = height > frame_HWC.shape[0]
    how = Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS
    return np.array(Image.fromarray(frame_HWC).resize((width, height), how))
