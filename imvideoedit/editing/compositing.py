"""Composite the source's pixels where an edit changed nothing: autoencoder and solver never copy exactly.

Shapes: F frames, H W pixels, C colours.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from imvideoedit.video.geometry import resized

BLUR = 1 / 21  # of the frame's mean side: smaller differences do not decide on their own
BLUR_FRAMES = 1.0  # in time, so that the border does not flicker
RAMP = 1.7  # times the level: above it, only the edit counts
REACH = 4  # frames before and after that the temporal blur reads: its filter is cut off there
BLOCK = 16  # frames composited at a time

Views = tuple[np.ndarray, np.ndarray, np.ndarray]
"""A frame of the source, of the source at the model's size, and of the edit at the model's size."""


def change_mask(source_FHWC: np.ndarray, edited_FHWC: np.ndarray, level: float) -> np.ndarray:
    """Where an edit changed something: ``[F, H, W]`` float32, 0 for the source, 1 for the edit.

    Smoothstep, from ``level`` to ``RAMP * level``, of the blurred root mean square difference of the colours.

    Args:
        source_FHWC, edited_FHWC: uint8, of one shape.
        level: grey levels, above 0.
    """
    squares = np.zeros(source_FHWC.shape[:3], np.float32)
    for color in range(source_FHWC.shape[3]):  # one at a time, to bound memory
        squares += (edited_FHWC[..., color].astype(np.float32) - source_FHWC[..., color]) ** 2
    sigma = BLUR * math.sqrt(source_FHWC.shape[1] * source_FHWC.shape[2])
    difference = gaussian_filter(np.sqrt(squares / source_FHWC.shape[3]), (BLUR_FRAMES, sigma, sigma), mode="nearest")
    share = np.clip((difference - level) / ((RAMP - 1) * level), 0, 1)
    return share * share * (3 - 2 * share)


def blend(source_FHWC: np.ndarray, edited_FHWC: np.ndarray, mask_FHW: np.ndarray) -> np.ndarray:
    """Alpha-blend: the source where the mask is 0, the edit where it is 1.

    Args:
        source_FHWC, edited_FHWC: uint8, of one shape.
        mask_FHW: float32 in [0, 1], of any height and width; resized to the frame.

    Returns:
        uint8, of the shape of the source.
    """
    height, width = source_FHWC.shape[1:3]
    mixed = np.empty_like(source_FHWC)
    for frame, (source, edited, mask) in enumerate(zip(source_FHWC, edited_FHWC, mask_FHW, strict=True)):
        share = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.BILINEAR))[..., None]
        start = source.astype(np.float32)
        mixed[frame] = (start + share * (edited - start)).round().clip(0, 255)
    return mixed


def composite_source(frames: Iterable[Views], level: float) -> Iterator[np.ndarray]:
    """:func:`blend` of a video by its :func:`change_mask`, with a few frames in memory at a time.

    Args:
        frames: source uint8 ``[H, W, 3]``; source and edit at the model's size, uint8 ``[h, w, 3]``.
        level: grey levels, above 0.

    Returns:
        Frames, uint8 ``[H, W, 3]``.
    """
    held: list[Views] = []
    before = 0  # held frames that are done already
    for views in frames:
        held.append(views)
        if len(held) == before + BLOCK + REACH:
            yield from _blended(held, before, before + BLOCK, level)
            held, before = held[before + BLOCK - REACH :], REACH
    if len(held) > before:
        yield from _blended(held, before, len(held), level)


def _blended(held: list[Views], first: int, last: int, level: float) -> np.ndarray:
    source, fitted, edited = (np.stack(views) for views in zip(*held, strict=True))
    mask_FHW = change_mask(fitted, edited, level)[first:last]
    larger = np.stack(list(resized(edited[first:last], source.shape[1:3])))
    return blend(source[first:last], larger, mask_FHW)
