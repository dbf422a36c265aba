"""How an edit is sampled: sizes, solver, guidance, caching, compositing."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from imvideoedit.common.errors import UserError

QUALITIES = ("draft", "standard", "best")
SOLVERS = ("euler", "unipc")
_LEAST = sys.float_info.min
_AREA, _FRAMES, _STEPS = 2**30, 10**6, 10**4  # beyond all use, and what the rest of the code can count with
_SCALE = 1e6  # likewise
RANGES: dict[str, tuple[float, float, str]] = {
    "max_area": (1, _AREA, "at least 1 pixel, at most 2^30"),
    "max_frames": (1, _FRAMES, "at least 1, at most a million"),
    "overlap": (0, _FRAMES, "0 frames or more, at most a million"),
    "steps": (1, _STEPS, "at least 1, at most 10000"),
    "guidance": (1, _SCALE, "at least 1, at most a million"),
    "guided_share": (0, 1, "0 to 1"),
    "source_guidance": (0, _SCALE, "0 or more, at most a million"),
    "strength": (_LEAST, 1, "above 0 and at most 1"),
    "shift": (_LEAST, _SCALE, "above 0, at most a million"),
    "keep": (0, 255, "0 to 255 grey levels"),
    "mask_feather": (0, _SCALE, "0 pixels or more, at most a million"),
    "cache": (0, sys.float_info.max, "0 or more"),
}
"""Least and greatest value of a setting, and what to say of them."""
HELP = {
    "max_area": "most pixels of a frame at the model's size",
    "max_frames": "most frames of a window; 4k + 1",
    "overlap": "frames that neighbouring windows share",
    "steps": "solver steps",
    "solver": "euler, or unipc of second order",
    "guidance": "scale of classifier-free guidance by the text; 1 skips its pass",
    "guided_share": "share of the steps, the first ones, with guidance",
    "source_guidance": "scale of guidance by the source: above 1 follows it more, below 1 less",
    "strength": "below 1 starts from the noised source, which keeps its layout",
    "shift": "flow shift of the schedule",
    "cache": "threshold of First Block Cache, 0 for off; try 0.1",
    "keep": "composite the source's pixels below this difference in grey levels, 0 for off",
    "mask_feather": "width of the fade around the mask, in pixels; 0 for a hard edge",
}
"""What a setting does, for who sets it: on the command line, in a ComfyUI node or in diffusers' blocks."""


@dataclass(frozen=True)
class SamplingConfig:
    """How an adapter is sampled; an adapter file's header holds its own (``training.sampler``).

    Attributes:
        max_area: most pixels of a frame at the model's size.
        max_frames: most frames of a window; of the form 4k + 1 for Wan. A longer video is edited in windows of that
            length, which are blended at every step.
        overlap: least frames that neighbouring windows share, below ``max_frames``.
        steps: solver steps.
        solver: ``euler``, or ``unipc`` of second order.
        guidance: scale of classifier-free guidance by the text; 1 skips the unconditional branch.
        guided_share: share of the steps, from the first on, that use guidance, in [0, 1].
        source_guidance: scale of guidance by the source, against the frozen model's velocity from the text alone:
            above 1 follows the source more, below 1 less, 0 ignores it, but for what guidance by the text adds, which
            it does not scale; 1 skips that branch.
        strength: share of the way from noise that is sampled, in (0, 1]; below 1 starts from the noised source, whose
            layout then stays.
        shift: flow shift of the schedule; None for the backbone's own.
        cache: threshold of First Block Cache (diffusers' implementation): where the first block's residual changes
            less than this since the last full pass, the other blocks' residual is reused; 0 turns it off.
        keep: difference in grey levels below which the source's pixels are composited back; 0 turns it off.
        mask_feather: distance from a mask, in pixels of the source, over which the edit fades out; 0 is a hard edge.

    Raises:
        UserError: a value is out of its range.
    """

    max_area: int = 480 * 832
    max_frames: int = 81
    overlap: int = 16
    steps: int = 50
    solver: Literal["euler", "unipc"] = "euler"
    guidance: float = 5.0
    guided_share: float = 1.0
    source_guidance: float = 1.0
    strength: float = 1.0
    shift: float | None = None
    cache: float = 0.0
    keep: float = 0.0
    mask_feather: float = 8.0

    def __post_init__(self) -> None:
        for name, (low, high, words) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f"{name} is {value}; it must be {words}")
        if self.solver not in SOLVERS:
            raise UserError(f"solver is {self.solver!r}; choose {' or '.join(SOLVERS)}")

    def override(self, **values: Any) -> "SamplingConfig":
        """A copy with the values that are not None.

        Raises:
            UserError: a value is out of its range.
        """
        return replace(self, **{name: value for name, value in values.items() if value is not None})

    def preset(self, quality: str) -> "SamplingConfig":
        """``best`` is this config; ``standard`` has half the steps, ``draft`` a fifth of them and no guidance.

        Raises:
            UserError: there is no such quality.
        """
        if quality == "best":
            return self
        if quality == "standard":  # guidance in the first half of the steps, where the layout is decided
            return replace(self, steps=max(self.steps // 2, 1), solver="unipc", guided_share=0.5)
        if quality == "draft":
            return replace(self, steps=max(self.steps // 5, 1), solver="unipc", guidance=1.0, source_guidance=1.0)
        raise UserError(f"quality is {quality!r}; choose {', '.join(QUALITIES)}")


def adapters_own(training: Mapping[str, Any], path: Path) -> SamplingConfig:
    """The config of an adapter.

    Args:
        training: what its header says of it.
        path: of its file, for the error.

    Raises:
        UserError: a setting is unknown, or out of its range.
    """
    try:
        return SamplingConfig(**training.get("sampler", {}))
    except TypeError as error:
        raise UserError(f"{path} has unknown sampling settings ({error}); upgrade imvideoedit") from error
