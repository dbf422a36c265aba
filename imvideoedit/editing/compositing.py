"""Composite the source's pixels outside a mask, and where an edit changed nothing: no model copies exactly.

Shapes: F frames, H W pixels, C colours.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from imvideoedit.common.errors import Note
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


def blend(
    source_FHWC: np.ndarray,
    edited_FHWC: np.ndarray,
    mask_FHW: np.ndarray,
    share_FHW: Sequence[np.ndarray | None] | None = None,
) -> np.ndarray:
    """Alpha-blend: the source where the mask is 0, the edit where it is 1.

    Args:
        source_FHWC, edited_FHWC: uint8, of one shape.
        mask_FHW: float32 in [0, 1], of any height and width; resized to the frame.
        share_FHW: multiplies the mask, of the frame's size; a frame's None is 1.

    Returns:
        uint8, of the shape of the source.
    """
    height, width = source_FHWC.shape[1:3]
    mixed = np.empty_like(source_FHWC)
    shares = [None] * len(source_FHWC) if share_FHW is None else share_FHW
    for frame, (source, edited, mask, share) in enumerate(zip(source_FHWC, edited_FHWC, mask_FHW, shares, strict=True)):
        alpha = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.BILINEAR))
        mixed[frame] = mix(source, edited, alpha if share is None else alpha * share)
    return mixed


def mix(source_HWC: np.ndarray, edited_HWC: np.ndarray, alpha_HW: np.ndarray) -> np.ndarray:
    """uint8 ``[H, W, 3]``: the source where alpha is 0, to the bit; the edit where it is 1."""
    start = source_HWC.astype(np.float32)
    return (start + alpha_HW[..., None] * (edited_HWC - start)).round().clip(0, 255).astype(np.uint8)


def composite_source(
    frames: Iterable[Views], level: float, shares: Iterable[np.ndarray | None] | None = None
) -> Iterator[np.ndarray]:
    """:func:`blend` of a video by its :func:`change_mask`, with a few frames in memory at a time.

    Args:
        frames: source uint8 ``[H, W, 3]``; source and edit at the model's size, uint8 ``[h, w, 3]``.
        level: grey levels, above 0.
        shares: of each frame, see :func:`blend`.

    Returns:
        Frames, uint8 ``[H, W, 3]``. Where the edit changes none of them, a ``Note`` says so at the end.
    """
    changed = False
    held: list[tuple[Views, np.ndarray | None]] = []
    before = 0  # held frames that are done already
    for views, share_HW in zip(frames, repeat(None) if shares is None else shares, strict=False):
        held.append((views, share_HW))
        if len(held) == before + BLOCK + REACH:
            mixed, differs = _blended(held, before, before + BLOCK, level)
            yield from mixed
            changed |= differs
            held, before = held[before + BLOCK - REACH :], REACH
    if len(held) > before:
        mixed, differs = _blended(held, before, len(held), level)
        yield from mixed
        changed |= differs
    if not changed:
        words = f"no pixel is edited, as none that may change differs by more than keep={level:g} grey levels"
        warnings.warn(Note(f"{words}; lower keep, or set it to 0"), stacklevel=2)


def _blended(
    held: list[tuple[Views, np.ndarray | None]], first: int, last: int, level: float
) -> tuple[np.ndarray, bool]:
    """Some of the held frames, and whether any of them is not the source's."""
    source, fitted, edited = (np.stack(views) for views in zip(*(views for views, _ in held), strict=True))
    mask_FHW = change_mask(fitted, edited, level)[first:last]
    larger = np.stack(list(resized(edited[first:last], source.shape[1:3])))
    mixed = blend(source[first:last], larger, mask_FHW, [share for _, share in held[first:last]])
    return mixed, not np.array_equal(mixed, source[first:last])


def composite(
    open_frames: Callable[[], Iterable[np.ndarray]],
    edited: Iterable[np.ndarray],
    own: tuple[int, int],
    size: tuple[int, int],
    level: float,
    shares: Iterable[np.ndarray] | None = None,
) -> Iterator[np.ndarray]:
    """An edit at its source's size, with the source's pixels outside a mask and where the edit changed nothing.

    Args:
        open_frames: gives the source's frames, uint8 ``[H, W, 3]``; called up to twice.
        edited: uint8 ``[h, w, 3]``.
        own, size: height and width of the source, and of the edit.
        level: grey levels below which the edit changed nothing; 0 to composite by the mask alone.
        shares: of the edit in each frame by the mask, float32 ``[H, W]`` in [0, 1].
    """
    if level > 0:
        views = zip(open_frames(), resized(open_frames(), size), edited, strict=True)
        yield from composite_source(views, level, shares)
        return
    larger = resized(edited, own)
    if shares is None:
        yield from larger
        return
    for source_HWC, edited_HWC, share_HW in zip(open_frames(), larger, shares, strict=True):
        yield mix(source_HWC, edited_HWC, share_HW)
