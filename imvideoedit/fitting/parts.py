"""What a clip's two stages train on: parts of the clip, and each edited frame alone.

Shapes: F frames, H W pixels.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from imvideoedit.data.sizes import fit

PART = 13  # frames of a part in the low-cost mode; neighbours share one
EDITS = 9  # times that each edited frame comes in a round, where each part of the clip comes once
Example = Mapping[str, Any]
"""At the clip's size: ``source``, ``target`` and inputs, uint8 ``[F, H, W, 3]``, masks ``[F, H, W]``; ``prompt``."""


def parts_of(frames: int, mode: str) -> list[slice]:
    """The frames that are trained on in turn: all of them, or for ``low-cost`` overlapping parts of 13."""
    if mode == "full" or frames <= PART:
        return [slice(0, frames)]
    starts = range(0, frames - 1, PART - 1)
    return [slice(start, min(start + PART, frames)) for start in starts]


def clip_example(frames_FHWC: np.ndarray, masks_FHW: np.ndarray, prompt: str) -> Example:
    """A part of the clip: what is masked is to be generated, from the first frame on."""
    inputs = {"mask": masks_FHW, "first_frame": frames_FHWC[:1]}
    return {"source": frames_FHWC, "target": frames_FHWC, **inputs, "prompt": prompt}


def edited_example(frame_HWC: np.ndarray, mask_HW: np.ndarray, edited_HWC: np.ndarray, prompt: str) -> Example:
    """A frame of the clip alone: what is masked is to become as the edited frame has it."""
    target_FHWC = fit(edited_HWC, frame_HWC.shape[:2])[None]
    return {"source": frame_HWC[None], "target": target_FHWC, "mask": mask_HW[None], "prompt": prompt}
