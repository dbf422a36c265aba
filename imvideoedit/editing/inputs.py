"""A method's inputs for an edit, from arrays or from files, as sources of frames and as texts.

Shapes: F frames, H W pixels.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import Input, check_inputs
from imvideoedit.editing.job_inputs import MASK, Given
from imvideoedit.video.images import load_rgb
from imvideoedit.video.masks import BOX, binary, check_aspect, follows_file, open_mask
from imvideoedit.video.reader import Clip

FrameSource = Callable[[], Iterable[np.ndarray]]
"""Gives frames from the first on, at every call: uint8 ``[H, W, 3]``; of a mask ``[H, W]``, 0 or 255."""
Sources = Mapping[str, FrameSource | str]
"""Inputs by name; a still has one frame."""
FIRST_FRAME, REFERENCE = "first_frame", "reference"
ANY_MASK = Input(MASK, "mask", required=False)


def known_inputs(declared: Sequence[Input]) -> dict[str, Input]:
    """What an edit may be given, by name: the declared inputs, and a mask always, outside which the source stays."""
    return {MASK: ANY_MASK} | {each.name: each for each in declared}


def check_names(declared: Sequence[Input], given: Iterable[str], what: str) -> None:
    """As :func:`imvideoedit.edit_batch.check_inputs`; a mask is known to every method.

    Raises:
        UserError: an input is missing or unknown.
    """
    takes_mask = any(each.name == MASK for each in declared)
    check_inputs(declared, {name for name in given if name != MASK or takes_mask}, what)


def is_frame(declared: Input) -> bool:
    """Whether an image is one of the video's frames, so that it must have their aspect ratio.

    A reference is the edited first frame in training, but an edit may be given any image, which is cropped.
    """
    return declared.kind == "image" and (
        declared.name == FIRST_FRAME or (declared.from_target and declared.name != REFERENCE)
    )


def check_size(declared: Input, what: str, size: tuple[int, int], own: tuple[int, int]) -> None:
    """See that an input fits a source of height and width ``own``.

    Raises:
        UserError: it lies on the source, and has another aspect ratio.
    """
    if declared.kind in ("video", "mask") or is_frame(declared):
        check_aspect(what, size, own)


def in_length(name: str, frames: Iterable[np.ndarray], count: int, still: bool) -> Iterator[np.ndarray]:
    """The frames of an input, as many as the source has; with ``still``, a single one is repeated.

    Raises:
        UserError: there are fewer or more.
    """
    found = 0
    for frame in frames:
        found += 1
        if found > count:
            break
        yield frame
    if still and found == 1:
        yield from (frame for _ in range(count - 1))
    elif found != count:
        number = "more" if found > count else f"{found}"
        raise UserError(f"the input {name} has {number} frames, but the source has {count}; give one for each")


def from_arrays(known: Mapping[str, Input], given: Mapping[str, np.ndarray | str], frames: int) -> Sources:
    """Sources of what a call of the pipeline is given.

    Args:
        given: an image uint8 ``[H, W, 3]``, a video uint8 ``[F, H, W, 3]``, a mask of any number type ``[H, W]`` or
            ``[F, H, W]``, a text; of names that are not known, whatever there is.
        frames: of the source.

    Raises:
        UserError: a video or mask has another length.
        ValueError: an array is of another type or shape than its kind has.
    """
    sources: dict[str, FrameSource | str] = {}
    for name, value in given.items():
        kind = known[name].kind
        if kind == "text" or isinstance(value, str):
            if kind != "text" or not isinstance(value, str):
                raise ValueError(f"the input {name} is a {kind}, not {type(value).__name__}")
            sources[name] = value
            continue
        still = kind == "image" or (kind == "mask" and value.ndim == 2)
        array = _mask_array(name, value) if kind == "mask" else _colour_array(name, kind, value)
        if not still and len(array) != frames:
            raise UserError(f"the input {name} has {len(array)} frames, but the video has {frames}; give one for each")
        sources[name] = partial(iter, array)
    return sources


def _mask_array(name: str, mask: np.ndarray) -> np.ndarray:
    """uint8 ``[F, H, W]`` of 0 and 255."""
    if mask.ndim not in (2, 3) or not mask.size or mask.dtype.kind not in "buif" or not np.isfinite(mask).all():
        raise ValueError(f"the input {name} must be a mask of numbers, [H, W] or [F, H, W]; got {_told(mask)}")
    # Of nothing but zeros, or less, no value is above half of the largest.
    return binary(mask if mask.ndim == 3 else mask[None], max(float(mask.max()), 0.0))


def _colour_array(name: str, kind: str, array: np.ndarray) -> np.ndarray:
    """uint8 ``[F, H, W, 3]``."""
    axes = 3 if kind == "image" else 4
    if array.dtype != np.uint8 or array.ndim != axes or array.shape[-1] != 3 or not array.size:
        shape = "[H, W, 3]" if kind == "image" else "[F, H, W, 3]"
        raise ValueError(f"the input {name} must be uint8 {shape}; got {_told(array)}")
    return array if kind == "video" else array[None]


def _told(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"


def from_files(known: Mapping[str, Input], given: Mapping[str, Given], source: Clip) -> Sources:
    """Sources of a job's inputs; everything about them is checked that reading them can show.

    Args:
        source: the part of the job's video that is edited.

    Raises:
        UserError: a file is missing or damaged, or has another length or aspect ratio than the source.
    """
    sources: dict[str, FrameSource | str] = {}
    own = source.info.height, source.info.width
    for name, value in given.items():
        declared = known[name]
        if declared.kind == "text":
            sources[name] = value.text
        elif declared.kind == "mask":
            sources[name] = open_mask(value.text if value.text.startswith(BOX) else value.path, source)
        elif declared.kind == "image":
            image_HWC = load_rgb(value.path)
            check_size(declared, f"the {name} {value.path}", image_HWC.shape[:2], own)
            sources[name] = partial(iter, image_HWC[None])
        else:
            clip = Clip(value.path)
            check_size(declared, f"the {name} {value.path}", (clip.info.height, clip.info.width), own)
            follows = follows_file(f"the {name} {value.path}", len(clip), source)
            sources[name] = partial(iter, clip.along(source) if follows else clip)
    return sources
