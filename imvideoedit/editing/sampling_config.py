"""How an edit is made: sizes, solver, guidance, and what is kept of the source."""

import sys
from dataclasses import dataclass, replace
from typing import Any, Literal

from imvideoedit.common.errors import UserError

SOLVERS = ("euler", "unipc")
_MOST = sys.float_info.max
_LEAST = sys.float_info.min
_RANGES = {
    "max_area": (1, _MOST, "at least 1 pixel"),
    "max_frames": (1, _MOST, "at least 1"),
    "overlap": (0, _MOST, "0 frames or more"),
    "steps": (1, _MOST, "at least 1"),
    "guidance": (1, _MOST, "at least 1"),
    "guided_share": (0, 1, "0 to 1"),
    "source_guidance": (0, _MOST, "0 or more"),
    "strength": (_LEAST, 1, "above 0 and at most 1"),
    "shift": (_LEAST, _MOST, "above 0"),
    "keep": (0, 255, "0 to 255 grey levels"),
    "cache": (0, _MOST, "0 or more"),
}


@dataclass(frozen=True)
class SamplingConfig:
    """How an adapter wants to be run, from the training summary of its header.

    Attributes:
        max_area: pixels of a frame that the model sees, at most.
        max_frames: frames that the model sees at a time, at most; of the form 4k + 1 for Wan. A longer video is edited
            in windows of that length, which are blended at every step.
        overlap: frames that neighbouring windows share at least, below ``max_frames``.
        steps: of the solver.
        solver: ``euler``, or ``unipc`` of second order.
        guidance: scale of classifier-free guidance by the text; 1 skips the branch without text.
        guided_share: share of the steps, the first ones, that have guidance, in [0, 1].
        source_guidance: scale of guidance by the source, from what the frozen model makes of the text alone: above 1
            holds on to the source more, below 1 less, 0 ignores it; 1 skips that branch.
        strength: share of the way from noise that is run, in (0, 1]; below 1 it starts from the noised source, whose
            layout then stays.
        shift: flow shift of the sampler; None for the backbone's own.
        cache: relative change of what the first block adds, since the last whole pass, below which a step takes from
            that pass what the other blocks add (First Block Cache, diffusers' implementation); 0 for never.
        keep: grey levels of difference below which the source's own pixels are given back; 0 for never.

    Raises:
        UserError: a number is out of its range.
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

    def __post_init__(self) -> None:
        for name, (low, high, words) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f"{name} is {value}; it must be {words}")
        if self.solver not in SOLVERS:
            raise UserError(f"solver is {self.solver!r}; choose {' or '.join(SOLVERS)}")

    @classmethod
    def read(cls, training: dict[str, Any]) -> "SamplingConfig":
        """From a header's training summary; what it does not say keeps the default."""
        return cls(**training.get("sampler", {}))

    def with_given(self, **given: Any) -> "SamplingConfig":
        """A copy in which every value that is not None replaces the own one.

        Raises:
            UserError: a number is out of its range.
        """
        return replace(self, **{name: value for name, value in given.items() if value is not None})
