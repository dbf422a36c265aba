"""The training samples of LoRA-Edit's two stages, as examples of pixels, and how often each comes.

An example holds ``source``, ``target``, ``mask`` and in the first stage ``first_frame``, as ``Method.transform``
describes it; the caller adds its ``prompt``.

Shapes: F frames, H W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

REPEATS = 9  # of an edited frame in an epoch of the second stage, in which the clip comes once
SHORT = 13  # frames of a clip in the low-cost mode, of which neighbours share one


@dataclass(frozen=True)
class Sample:
    """One sample.

    Attributes:
        example: pixels by name: ``source`` and ``target`` uint8 ``[F, H, W, 3]``, ``mask`` uint8 ``[F, H, W]`` of 0 and
            255, white where the edit is; ``first_frame`` uint8 ``[1, H, W, 3]``, where the first frame is given.
        start: the clip's frame that it begins with.
        edited: whether its target is an edited frame, whose prompt tells the edited frame.
        repeats: how often it comes in an epoch.
    """

    example: dict[str, Any]
    start: int = 0
    edited: bool = False
    repeats: int = 1


def stage_samples(
    clip_FHWC: np.ndarray,
    mask_FHW: np.ndarray,
    edited: Mapping[int, np.ndarray],
    stage: int,
    chunks: Sequence[slice] | None = None,
) -> list[Sample]:
    """The samples of a stage.

    The first has the clip: its first frame is given whole, of the others what lies outside the mask. The second has the
    clip again, and each edited frame as a video of one frame, of which what lies outside the mask is given as it was
    before the edit. So the edited frame is the target alone.

    Args:
        clip_FHWC: uint8.
        mask_FHW: uint8, white (above 127) where the edit is; or ``[1, H, W]`` for all frames.
        edited: uint8 ``[H, W, 3]`` by their frame's index. Without the first frame in it, another first frame can be
            given later without a new fit.
        stage: 1 or 2.
        chunks: parts of the clip that come in its place, see :func:`chunks_of`.

    Raises:
        ValueError: there is no such stage or frame, or a mask or edited frame is of another size or length.
    """
    frames, size = len(clip_FHWC), clip_FHWC.shape[1:3]
    if stage not in (1, 2):
        raise ValueError(f"stage {stage}; there are 1 and 2")
    if mask_FHW.shape[1:] != size or len(mask_FHW) not in (1, frames):
        raise ValueError(f"a mask of shape {mask_FHW.shape} for a clip of shape {clip_FHWC.shape}")
    masks = np.broadcast_to(np.where(mask_FHW > 127, np.uint8(255), np.uint8(0)), (frames, *size))
    samples = []
    for part in chunks or [slice(0, frames)]:
        clip = clip_FHWC[part]
        example = {"source": clip, "target": clip, "mask": masks[part], "first_frame": clip[:1]}
        samples.append(Sample(example, part.start))
    if stage == 1:
        return samples
    for index, frame_HWC in sorted(edited.items()):
        if not 0 <= index < frames or frame_HWC.shape != clip_FHWC.shape[1:]:
            raise ValueError(f"an edited frame {index} of shape {frame_HWC.shape} for a clip of {clip_FHWC.shape}")
        alone = slice(index, index + 1)
        example = {"source": clip_FHWC[alone], "target": frame_HWC[None], "mask": masks[alone]}
        samples.append(Sample(example, index, edited=True, repeats=REPEATS))
    return samples


def chunks_of(frames: int, length: int = SHORT) -> list[slice]:
    """Overlapping parts of a clip for the low-cost mode: each but the last begins where the one before ends.

    49 frames give, counted from 1, frames 1 to 13, 13 to 25, 25 to 37 and 37 to 49. Where the parts do not fill a clip,
    the last one ends with it and overlaps more.

    Args:
        frames: of the clip.
        length: of a part, at least 2.

    Raises:
        ValueError: ``length`` is below 2.
    """
    if length < 2:
        raise ValueError(f"parts of {length} frames; at least 2")
    if frames <= length:
        return [slice(0, frames)]
    starts = [*range(0, frames - length, length - 1), frames - length]
    return [slice(start, start + length) for start in starts]
