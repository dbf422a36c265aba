"""The sizes and lengths of buckets, and frames cropped to them; see ``buckets``. Imports no torch."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from imvideoedit.common.errors import UserError

Size = tuple[int, int]
"""(height, width) in pixels."""

MAX_ASPECT = 3.0
MAX_STRETCH = 1.02  # of a mask's aspect ratio against its source's


class Bucket(NamedTuple):
    """What rows must have in common to be stacked: frames, size in pixels, and the inputs that they carry."""

    frames: int
    height: int
    width: int
    inputs: tuple[str, ...] = ()

    @property
    def size(self) -> Size:
        """(height, width)."""
        return self.height, self.width


def make_buckets(max_area: int, multiple: int, max_aspect: float = MAX_ASPECT) -> list[Size]:
    """Bucket sizes, sorted by height: both sides are multiples, the area is at most ``max_area``.

    Sizes neither side of which can grow within the area, with aspects from 1:``max_aspect`` to its inverse.
    If there are none (an area of a few multiples), the largest square is the only bucket.

    Raises:
        UserError: not even one ``multiple`` x ``multiple`` image fits, or the aspect is below 1.
    """
    if max_aspect < 1:
        raise UserError(f"data.max_aspect is {max_aspect}; it must be at least 1")
    cells = max_area // (multiple * multiple)
    if cells < 1:
        raise UserError(f"max_area={max_area} is less than {multiple}x{multiple} pixels; raise it")
    shapes = [(rows, cells // rows) for rows in range(1, cells + 1)]
    maximal = [(rows, columns) for rows, columns in shapes if cells // columns == rows]
    kept = [s for s in maximal if max(s) <= max_aspect * min(s)]
    side = math.isqrt(cells)
    return [(rows * multiple, columns * multiple) for rows, columns in kept or [(side, side)]]


def nearest_bucket(size: Size, buckets: Sequence[Size]) -> Size:
    """The bucket whose aspect ratio is nearest to that of ``size`` on a log scale; of equal ones the larger."""
    wanted = math.log(size[1] / size[0])
    return min(buckets, key=lambda b: (abs(math.log(b[1] / b[0]) - wanted), -b[0] * b[1], b))


def bucket_length(frames: int, clip: bool, lengths: Sequence[int], label: str) -> int:
    """The frames of a row's bucket: 1 for an image, and for a clip the most that it fills.

    Args:
        frames: of the row.
        lengths: allowed ones; above 1 they are of clips.

    Raises:
        UserError: no length suits it; begins with ``label``.
    """
    if not clip:
        if 1 not in lengths:
            raise UserError(f"{label}: is an image, but data.frames={list(lengths)} has no 1; add it or remove the row")
        return 1
    longer = [length for length in lengths if length > 1]
    if not longer:
        raise UserError(
            f"{label}: is a clip of {frames} frames, but data.frames={list(lengths)} has no length above 1; "
            "add one, such as 17, or remove the row"
        )
    if frames < min(longer):
        raise UserError(
            f"{label}: has {frames} frames, fewer than the shortest length of a clip, {min(longer)}; "
            "give a longer clip, add a length to data.frames, or remove the row"
        )
    return max(length for length in longer if length <= frames)


def check_lengths(lengths: Sequence[int]) -> None:
    """See that the lengths of buckets are 4k + 1, as the autoencoder takes them.

    Raises:
        UserError: one is not, or there is none.
    """
    if not lengths or any(length < 1 or length % 4 != 1 for length in lengths):
        raise UserError(f"data.frames is {list(lengths)}; give lengths 4k + 1, such as 1 for images and 17 for clips")


def fit(image_HWC: np.ndarray, size: Size) -> np.ndarray:
    """Scale an image so that it covers ``size`` and crop the centre: uint8 ``[h, w, 3]``.

    Depends on the two sizes alone, so the images of a pair stay aligned.
    """
    return _fit(image_HWC, size, Image.Resampling.LANCZOS)


def fit_mask(mask_HW: np.ndarray, source: Size, size: Size, label: str) -> np.ndarray:
    """A mask cut as :func:`fit` cuts its source, with the nearest values: uint8 ``[h, w]``.

    Args:
        source: (height, width) of the source, to which the mask is scaled first where it has another size.

    Raises:
        UserError: its shape is not the source's; begins with ``label``.
    """
    height, width = mask_HW.shape
    stretch = (width / height) / (source[1] / source[0])
    if not 1 / MAX_STRETCH <= stretch <= MAX_STRETCH:
        raise UserError(f"{label} is {width}x{height} but source is {source[1]}x{source[0]}; give one of that shape")
    if (height, width) != source:
        mask_HW = np.asarray(Image.fromarray(mask_HW).resize(source[::-1], Image.Resampling.NEAREST))
    return _fit(mask_HW, size, Image.Resampling.NEAREST)


def _fit(image: np.ndarray, size: Size, filter: Image.Resampling) -> np.ndarray:
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    scale = max(size[0] / height, size[1] / width)
    crop_height, crop_width = size[0] / scale, size[1] / scale
    left, top = (width - crop_width) / 2, (height - crop_height) / 2
    box = (max(0.0, left), max(0.0, top), min(width, left + crop_width), min(height, top + crop_height))
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), filter, box=box))
