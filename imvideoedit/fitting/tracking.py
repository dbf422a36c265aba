"""A mask of one frame followed through a clip without a network: a search for its shift, then Lucas-Kanade.

From a frame to the next, the region's shift is searched among whole pixels, and scikit-image's iterative Lucas-Kanade
finds what is left of the motion. The motions of all frames so far are composed, and the first mask is read once through
them, so that it does not blur. A box stays a box: it moves and scales by the median motion within it, as the median
flow tracker does (Kalal et al. 2010), since most of what a box holds besides the thing is background that stays behind.

It loses things that another one hides, that turn, or that come back; it never grows a mask by what comes into view.

Shapes: F frames, H W pixels.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import numpy as np
from PIL import Image
from scipy.ndimage import map_coordinates
from skimage.registration import optical_flow_ilk

from imvideoedit.video.masks import WHITE, nearest

LONGEST = 256  # pixels of the longer side at which motion is found; larger frames are shrunk to it
REACH = 0.1  # of the longer side: the largest shift from frame to frame that is searched
RADIUS = 3  # of Lucas-Kanade's windows, in pixels
COMPARED = 1000  # most pixels of a region whose shift is searched
FEWEST = 0.25  # share of a region that must stay within the frame for a shift to count
GREY = np.array([0.299, 0.587, 0.114], np.float32)

Motion = tuple[np.ndarray, np.ndarray]
"""Rows and columns, ``[H, W]`` each: where in an earlier frame the content of each pixel lies."""


def track(frames: Iterable[np.ndarray], mask_HW: np.ndarray, box: bool = False) -> Iterator[np.ndarray]:
    """The mask of the first frame in each frame of a clip, uint8 ``[H, W]`` of 0 and 255.

    Args:
        frames: uint8 ``[H, W, 3]``, of one size; two are held at a time.
        mask_HW: uint8, 0 or not, of the first frame at its size.
        box: the mask is a box around the thing, with background in it.

    Raises:
        ValueError: the mask has nothing white.
    """
    if not mask_HW.any():
        raise ValueError("an empty mask cannot be tracked")
    own = mask_HW.shape
    size = _size(*own)
    small = (_shrunk(frame_HWC, size) for frame_HWC in frames)
    follow = _follow_box if box else _follow_region
    first = nearest(mask_HW, size) > 0
    if not first.any():  # thinner than a pixel of the shrunk frame
        first = _shrunk(np.repeat(mask_HW[..., None], 3, axis=2), size)[..., 0] > 0
    yield (mask_HW > 0).astype(np.uint8) * np.uint8(WHITE)
    for found_HW in follow(small, first):
        yield nearest(found_HW.astype(np.uint8) * np.uint8(WHITE), own)


def _follow_region(frames: Iterable[np.ndarray], first_HW: np.ndarray) -> Iterator[np.ndarray]:
    """The region in the second frame, the third, and so on."""
    rows, columns = _places(first_HW.shape)
    place, current_HW = (rows, columns), first_HW
    for before, after in pairwise(frames):
        row, column = _motion(before, after, current_HW)
        # Beyond the border a pixel is as far from it as it comes: what leaves the frame is gone, and not smeared.
        place = tuple(
            map_coordinates(axis, [row, column], order=1, mode="nearest") + beyond - np.clip(beyond, 0, length - 1)
            for axis, beyond, length in zip(place, (row, column), first_HW.shape, strict=True)
        )
        current_HW = map_coordinates(first_HW.astype(np.float32), list(place), order=1, mode="constant") > 0.5
        yield current_HW


def _follow_box(frames: Iterable[np.ndarray], first_HW: np.ndarray) -> Iterator[np.ndarray]:
    """As :func:`_follow_region`, of the smallest box around the region."""
    shape = first_HW.shape
    rows, columns = np.nonzero(first_HW)
    box = np.array([rows.min(), rows.max() + 1, columns.min(), columns.max() + 1], float)
    for before, after in pairwise(frames):
        region_HW = _inside(box, shape)
        if region_HW.any():
            row, column = _motion(after, before, region_HW)  # from a frame to the next one
            own_rows, own_columns = np.nonzero(region_HW)
            moved = row[region_HW] - own_rows, column[region_HW] - own_columns
            box = _moved_box(box, (own_rows, own_columns), moved)
        yield _inside(box, shape)


def _moved_box(box: np.ndarray, places: tuple[np.ndarray, np.ndarray], moved: tuple[np.ndarray, np.ndarray]):
    """A box (top, bottom, left, right) after its pixels moved: the median shift, and the median change of distances."""
    shift = np.array([np.median(moved[0])] * 2 + [np.median(moved[1])] * 2)
    here = np.stack(places, axis=1).astype(float)
    there = here + np.stack(moved, axis=1)
    pick = np.random.default_rng(0).permutation(len(here))  # pairs of pixels, the same ones each time
    distances = [np.linalg.norm(points - points[pick], axis=1) for points in (here, there)]
    far = distances[0] > 2
    scale = float(np.median(distances[1][far] / distances[0][far])) if far.any() else 1.0
    centre = np.array([box[:2].mean()] * 2 + [box[2:].mean()] * 2)
    return centre + shift + scale * (box - centre)


def _inside(box: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    top, bottom, left, right = (int(round(edge)) for edge in box)
    found_HW = np.zeros(shape, bool)
    found_HW[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    return found_HW


def _motion(before: np.ndarray, after: np.ndarray, region_HW: np.ndarray) -> Motion:
    """Where in the frame ``before`` the content of each pixel of ``after`` lies.

    Args:
        region_HW: bool, of ``before`` or of ``after``: its shift is searched.
    """
    rows, columns = _places(region_HW.shape)
    down, right = _shift(before, after, region_HW)
    earlier_HW, later_HW = before @ GREY, after @ GREY
    moved_HW = map_coordinates(earlier_HW, [rows - down, columns - right], order=1, mode="nearest")
    row, column = optical_flow_ilk(later_HW, moved_HW, radius=RADIUS, gaussian=True)
    return rows + row - down, columns + column - right


def _shift(before: np.ndarray, after: np.ndarray, region_HW: np.ndarray) -> tuple[int, int]:
    """The whole pixels, down and to the right, by which a region of ``before`` is found best in ``after``."""
    rows, columns = np.nonzero(region_HW)
    every = max(-(-len(rows) // COMPARED), 1)  # a region that left the frame is empty
    rows, columns = rows[::every], columns[::every]
    height, width = region_HW.shape
    reach = max(round(REACH * max(height, width)), 1)
    best, found = np.inf, (0, 0)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            row, column = rows + down, columns + right
            there = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            if there.sum() < max(FEWEST * len(rows), 1):
                continue
            difference = np.abs(before[rows[there], columns[there]] - after[row[there], column[there]]).mean()
            # Where nothing tells shifts apart, the smallest one.
            difference += 1e-3 * (abs(down) + abs(right)) / reach
            if difference < best:
                best, found = difference, (down, right)
    return found


def _places(shape: tuple[int, ...]) -> Motion:
    rows, columns = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij")
    return rows, columns


def _size(height: int, width: int) -> tuple[int, int]:
    scale = min(LONGEST / max(height, width), 1.0)
    return max(round(scale * height), 1), max(round(scale * width), 1)


def _shrunk(frame_HWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 ``[h, w, 3]`` in [0, 1]."""
    image = Image.fromarray(frame_HWC)
    if frame_HWC.shape[:2] != size:
        image = image.resize(size[::-1], Image.Resampling.BOX)
    return np.asarray(image, np.float32) / 255


Tracker = Callable[[Iterable[np.ndarray], np.ndarray, bool], Iterator[np.ndarray]]
"""As :func:`track`."""
