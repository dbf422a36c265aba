"""The videos of an edit, with equal sizes and frame rates."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.editing.prompts import sample_frames
from imvideoedit.evaluation.edits.manifest import EditRow
from imvideoedit.evaluation.edits.score_store import Unscored
from imvideoedit.video.reader import Clip


class ResizedVideo:
    """A video with its frames resized to ``(height, width)``; can be iterated repeatedly."""

    def __init__(self, clip: Clip, size: tuple[int, int]) -> None:
        self._clip, self._size = clip, size
        self.fps = float(clip.info.fps)

    def __len__(self) -> int:
        return len(self._clip)

    def __iter__(self) -> Iterator[np.ndarray]:
        height, width = self._size
        for frame_HWC in self._clip:
            if frame_HWC.shape[:2] != self._size:
                image = Image.fromarray(frame_HWC).resize((width, height), Image.Resampling.BILINEAR)
                frame_HWC = np.array(image)
            yield frame_HWC


class EditVideos(NamedTuple):
    """The videos of an edit."""

    edited: ResizedVideo
    source: ResizedVideo
    mask: ResizedVideo | None


def open_edit(row: EditRow) -> EditVideos:
    """Edited video, source and mask, all of the edited video's size.

    A source or mask with another number of frames is read at the edited video's frame rate.

    Raises:
        Unscored: a video cannot be read.
    """
    assert row.edited is not None
    try:
        edited = Clip(row.edited)
        size = edited.info.height, edited.info.width
        others = [_of_equal_length(edited, path) if path else None for path in (row.source, row.mask)]
    except UserError as error:
        raise Unscored(str(error)) from error
    source, mask = (ResizedVideo(other, size) if other else None for other in others)
    assert source is not None
    return EditVideos(ResizedVideo(edited, size), source, mask)


def _of_equal_length(edited: Clip, path: Path) -> Clip:
    clip = Clip(path)
    return clip if len(clip) == len(edited) else Clip(path, fps=edited.info.fps)


def frames_of(path: Path, count: int) -> list[np.ndarray]:
    """``count`` frames evenly from the first to the last, uint8 ``[H, W, 3]``; all frames of a shorter video.

    Raises:
        Unscored: the video cannot be read.
    """
    try:
        clip = Clip(path)
        return sample_frames(clip, len(clip), count)
    except UserError as error:
        raise Unscored(str(error)) from error
