"""The sizes of buckets, and images cropped to them; see ``buckets``. Imports no torch."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from imvideoedit.common.errors import UserError

Size = tuple[int, int]
"""(height, width) in pixels."""

MAX_ASPECT = 3.0


def make_buckets(max_area: int, multiple: int) -> list[Size]:
    """Bucket sizes, sorted by height: both sides are multiples, the area is at most ``max_area``.

    Sizes neither side of which can grow within the area, with aspects from 1:3 to 3:1. If there are none (an area of
    a few multiples), the largest square is the only bucket.

    Raises:
        UserError: not even one ``multiple`` x ``multiple`` image fits.
    """
    cells = max_area // (multiple * multiple)
    if cells < 1:
        raise UserError(f"max_area={max_area} is less than {multiple}x{multiple} pixels; raise it")
    shapes = [(rows, cells // rows) for rows in range(1, cells + 1)]
    maximal = [(rows, columns) for rows, columns in shapes if cells // columns == rows]
    kept = [s for s in maximal if max(s) <= MAX_ASPECT * min(s)]
    side = math.isqrt(cells)
    return [(rows * multiple, columns * multiple) for rows, columns in kept or [(side, side)]]


def nearest_bucket(size: Size, buckets: Sequence[Size]) -> Size:
    """The bucket whose aspect ratio is nearest to that of ``size`` on a log scale; of equal ones the larger."""
    wanted = math.log(size[1] / size[0])
    return min(buckets, key=lambda b: (abs(math.log(b[1] / b[0]) - wanted), -b[0] * b[1], b))


def fit(image_HWC: np.ndarray, size: Size) -> np.ndarray:
    """Scale an image so that it covers ``size`` and crop the centre: uint8 ``[h, w, 3]``.

    Depends on the two sizes alone, so the images of a pair stay aligned.
    """
    height, width = image_HWC.shape[:2]
    if (height, width) == size:
        return image_HWC
    scale = max(size[0] / height, size[1] / width)
    crop_height, crop_width = size[0] / scale, size[1] / scale
    left, top = (width - crop_width) / 2, (height - crop_height) / 2
    box = (max(0.0, left), max(0.0, top), min(width, left + crop_width), min(height, top + crop_height))
    return np.asarray(Image.fromarray(image_HWC).resize((size[1], size[0]), Image.Resampling.LANCZOS, box=box))
