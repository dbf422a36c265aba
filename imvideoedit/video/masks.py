"""Masks: white where an edit may change a video, black where the source stays.

A mask comes as a box, an image that holds for all frames, a video, or a folder of images, one a frame. Frames are read
one at a time.

Shapes: F frames, H W pixels.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt

from imvideoedit.common.errors import UserError
from imvideoedit.video.images import has_alpha, image_size, load_rgb
from imvideoedit.video.kinds import PICTURES, kind_of
from imvideoedit.video.reader import Clip

BOX = "box:"
WHITE = 255
ASPECT = 0.02  # how far the aspect ratio of what lies on the source may be from the source's
MaskSource = Callable[[], Iterable[np.ndarray]]
"""Gives a mask's frames from the first on, uint8 ``[H, W]`` of 0 and 255, at every call; a still one is one frame."""


def binary(mask_HW: np.ndarray, maximum: float) -> np.ndarray:
    """uint8 ``[H, W]``: 255 where a mask of any type is above half of ``maximum``, its range's, else 0."""
    return np.where(mask_HW > maximum / 2, np.uint8(WHITE), np.uint8(0))


def nearest(mask_HW: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask at another height and width, each pixel that of the nearest centre."""
    if mask_HW.shape == size:
        return mask_HW
    rows, columns = (((np.arange(n) + 0.5) * own / n).astype(int) for n, own in zip(size, mask_HW.shape, strict=True))
    return mask_HW[rows[:, None], columns]


def feathered(mask_HW: np.ndarray, feather: float) -> np.ndarray:
    """float32 ``[H, W]``: 1 in the mask, falling smoothly to 0 at a distance of ``feather`` pixels, 0 beyond.

    Args:
        mask_HW: 0 or not.
        feather: at least 0, which is a hard edge.
    """
    inside_HW = mask_HW > 0
    share_HW = inside_HW.astype(np.float32)
    if feather <= 1 or not inside_HW.any():  # the nearest pixel outside is a pixel away
        return share_HW
    reach = math.ceil(min(feather, sum(inside_HW.shape)))
    near = []  # rows and columns that the feather reaches; the others need no distances
    for axis in (1, 0):
        places = np.flatnonzero(inside_HW.any(axis=axis))
        near.append(slice(max(places[0] - reach, 0), places[-1] + 1 + reach))
    distance = distance_transform_edt(~inside_HW[tuple(near)])
    share = np.clip(1 - distance / feather, 0, 1)
    share_HW[tuple(near)] = share * share * (3 - 2 * share)
    return share_HW


def feathered_frames(masks: Iterable[np.ndarray], size: tuple[int, int], feather: float) -> Iterator[np.ndarray]:
    """:func:`feathered` of each mask at a frame's size; what equals the mask before is not computed again."""
    before: np.ndarray | None = None
    share_HW = np.zeros(size, np.float32)
    for mask_HW in masks:
        if before is None or not np.array_equal(mask_HW, before):
            before, share_HW = mask_HW, feathered(nearest(mask_HW, size), feather)
        yield share_HW


def parse_box(text: str) -> tuple[int, int, int, int]:
    """``box:x,y,w,h``, in pixels of the source from its upper left corner.

    Raises:
        UserError: it is none, or an empty one.
    """
    found = re.fullmatch(r"box:\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*", text)
    if not found:
        raise UserError(f"the mask {text!r} is no box; give box:x,y,w,h in whole pixels, such as box:10,20,64,48")
    left, top, width, height = map(int, found.groups())
    if not width or not height:
        raise UserError(f"the mask {text!r} is empty; its width and height must be at least 1")
    return left, top, width, height


def box_mask(text: str, height: int, width: int) -> np.ndarray:
    """The mask of a box in a frame, uint8 ``[H, W]``.

    Raises:
        UserError: it is no box, or reaches out of the frame.
    """
    left, top, wide, tall = parse_box(text)
    if left + wide > width or top + tall > height:
        raise UserError(f"the mask {text!r} reaches out of the video, which is {width}x{height}; give a box within it")
    mask_HW = np.zeros((height, width), np.uint8)
    mask_HW[top : top + tall, left : left + wide] = WHITE
    return mask_HW


def open_mask(given: Path | str, source: Clip) -> MaskSource:
    """A mask for a clip, from a box or a file.

    Its values count by half of the largest one in all frames that are read, so 0 and 1 serve as well as 0 and 255; of
    colours the brightest channel counts. A mask of several frames has one for each of the source file's, and is then
    cut and resampled with it, or else one for each frame of the clip; times do not count.

    Args:
        given: ``box:x,y,w,h``, or an image, a video, or a folder of images in the order of their names' numbers.

    Raises:
        UserError: the file is missing or damaged, has another length or aspect ratio than the clip, transparency, or
            nothing white.
    """
    info = source.info
    if isinstance(given, str) and given.startswith(BOX):
        box_HW = box_mask(given, info.height, info.width)
        return lambda: [box_HW]
    path = Path(given)
    frames, size = _grey_frames(path, source)
    check_aspect(f"the mask {path}", size, (info.height, info.width))
    maximum = 0
    for grey_HW in frames():
        maximum = max(maximum, int(grey_HW.max()))
        if maximum == WHITE:
            break
    if maximum == 0:
        raise UserError(f"the mask {path} is black in every frame to be edited; paint white what may change")
    return lambda: (binary(grey_HW, maximum) for grey_HW in frames())


def check_aspect(what: str, size: tuple[int, int], own: tuple[int, int]) -> None:
    """See that something can lie on a source of another size.

    Args:
        size, own: height and width of it, and of the source.

    Raises:
        UserError: its aspect ratio is another one.
    """
    if abs(math.log(size[1] / size[0] / own[1] * own[0])) > ASPECT:
        raise UserError(
            f"{what} is {size[1]}x{size[0]}, but the source is {own[1]}x{own[0]}; crop it to the same aspect ratio"
        )


def follows_file(what: str, count: int, source: Clip) -> bool:
    """Whether the ``count`` frames of what lies on a clip are those of its file; False where they are the clip's own.

    Raises:
        UserError: they are neither.
    """
    if count == source.file_frames:
        return True
    if count == len(source):
        return False
    edited = "" if len(source) == source.file_frames else f", of which {len(source)} are edited"
    one = "; give one for each" + (", or a still image" if what.startswith("the mask") else "")
    raise UserError(f"{what} has {count} frames, but {source.path} has {source.file_frames}{edited}{one}")


def _grey_frames(path: Path, source: Clip) -> tuple[MaskSource, tuple[int, int]]:
    """A mask file's frames at their own values, uint8 ``[H, W]``, those that belong to the clip; and their size."""
    if path.is_dir():
        return _folder_frames(path, source)
    if kind_of(path) == "still":
        grey_HW = _grey_image(path)
        return lambda: [grey_HW], grey_HW.shape[:2]
    clip = Clip(path)
    if clip.info.alpha:
        raise UserError(f"the mask {path} has transparency; save it in black and white without an alpha channel")
    if follows_file(f"the mask {path}", len(clip), source):
        clip = clip.along(source)
    return lambda: (frame_HWC.max(axis=2) for frame_HWC in clip), (clip.info.height, clip.info.width)


def _folder_frames(folder: Path, source: Clip) -> tuple[MaskSource, tuple[int, int]]:
    paths = list_images(folder)
    sizes = {image_size(path): path for path in paths}
    if len(sizes) > 1:
        first, second = list(sizes)[:2]
        raise UserError(
            f"the masks in {folder} differ in size, such as {first[1]}x{first[0]} and {second[1]}x{second[0]} "
            f"({sizes[second].name}); give all of one size"
        )
    if follows_file(f"the mask {folder}", len(paths), source):
        paths = [paths[index] for index in source.indices]
    return lambda: map(_grey_image, paths), next(iter(sizes))


def list_images(folder: Path) -> list[Path]:
    """The images of a folder in the order of the numbers in their names: ``9.png`` comes before ``10.png``.

    Raises:
        UserError: there is none.
    """
    found = [path for path in folder.iterdir() if path.suffix.lower() in PICTURES and not path.name.startswith(".")]
    if not found:
        raise UserError(f"there are no images in {folder}; give a folder with a mask for each frame")
    return sorted(found, key=_numbered)


def _numbered(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(int(part) if place % 2 else 0, part) for place, part in enumerate(parts)]


def _grey_image(path: Path) -> np.ndarray:
    rgb_HWC = load_rgb(path)
    if has_alpha(path):  # programs differ in what it means: the edit, or the source
        raise UserError(f"the mask {path} has transparent pixels; save it in black and white without transparency")
    return rgb_HWC.max(axis=2)
