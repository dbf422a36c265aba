"""The mask of a clip, one a frame: taken as it is, or followed from one still; stored without loss.

Shapes: F frames, H W pixels.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing_folder
from imvideoedit.fitting.tracking import track
from imvideoedit.video.masks import BOX, nearest, open_mask
from imvideoedit.video.reader import Clip


@dataclass(frozen=True)
class ClipMask:
    """Where the edit of a clip is.

    Attributes:
        frames: uint8 ``[F, H, W]`` of 0 and 255, at the clip's size.
        how: where it is from, in words.
    """

    frames: np.ndarray
    how: str


def make_mask(given: str, clip: Clip, tracker: str, sam2: str | None, device: torch.device) -> ClipMask:
    """The mask of each frame of a clip.

    Args:
        given: see :func:`imvideoedit.video.masks.open_mask`; a still or a box is that of the first frame.
        tracker: of a still, one of :data:`TRACKERS`; ``auto`` for SAM 2 where it is given or cached, else the flow.
        sam2: folder or hub id of SAM 2's weights; None for what is in the hub's cache.

    Raises:
        UserError: the mask cannot be read, does not fit the clip, or is empty or white everywhere.
    """
    masks = read_masks(given, clip)
    if len(masks) > 1 or len(clip) == 1:
        return ClipMask(np.stack(masks), f"{given}, one a frame")
    found, how = _tracked(clip, masks[0], is_box(given), tracker, sam2, device)
    return ClipMask(np.stack(found), f"{given}, followed through the clip by {how}")


def is_box(given: str) -> bool:
    """Whether a mask is given as a box."""
    return given.startswith(BOX)


def read_masks(given: str, clip: Clip) -> list[np.ndarray]:
    """A mask as it is given, at the clip's size: uint8 ``[H, W]`` of 0 and 255, one, or one a frame.

    Raises:
        UserError: as :func:`make_mask`.
    """
    size = clip.info.height, clip.info.width
    frames = open_mask(given if is_box(given) else Path(given), clip)
    masks = [nearest(mask_HW, size) for mask_HW in frames()]
    if all(mask_HW.all() for mask_HW in masks):
        raise UserError(
            f"the mask {given} is white in all of every frame, so that nothing of the clip would be kept; paint black "
            "what shall stay"
        )
    return masks


def _tracked(
    clip: Clip, mask_HW: np.ndarray, box: bool, tracker: str, sam2: str | None, device: torch.device
) -> tuple[list[np.ndarray], str]:
    """The masks of all frames, and what found them."""
    if tracker == "flow" or (tracker == "auto" and sam2 is None and (sam2 := _cached()) is None):
        return list(track(clip, mask_HW, box)), "optical flow on the CPU"
    name = sam2 or _cached()
    if name is None:
        raise UserError("--tracker sam2 needs its weights, and none are in the hub's cache; give --sam2 FOLDER")
    try:
        from imvideoedit.fitting.sam2 import Sam2Tracker
    except ImportError as error:
        raise UserError(
            f"SAM 2 needs torchvision ({error}); pip install 'imvideoedit[vision]', or give --tracker flow"
        ) from error
    return list(Sam2Tracker(name, device).track(clip, mask_HW, box)), f"SAM 2 ({Path(name).name})"


def _cached() -> str | None:
    try:
        from imvideoedit.fitting.sam2 import local_sam2
    except ImportError:  # without torchvision
        return None
    return local_sam2()


def save_masks(masks_FHW: np.ndarray, folder: Path) -> None:
    """Write masks as ``00000.png``, ``00001.png`` and so on; the folder appears complete or not at all."""
    with replacing_folder(folder) as temporary:
        for number, mask_HW in enumerate(masks_FHW):
            Image.fromarray(mask_HW).save(temporary / f"{number:05d}.png")


def vanishing(masks: Iterable[np.ndarray]) -> int | None:
    """The first frame whose mask is empty after one that is not; None if there is none."""
    filled = [bool(mask_HW.any()) for mask_HW in masks]
    return next((number for number in range(1, len(filled)) if filled[number - 1] and not filled[number]), None)
