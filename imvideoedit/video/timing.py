"""When the frames of a video are shown, in exact integer ticks; ranges, and a constant rate on request."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from imvideoedit.common.errors import UserError

_LARGEST_DENOMINATOR = 1001  # that of NTSC's rates
_A_MICROSECOND = Fraction(1, 1_000_000)  # lets a range given as floats begin on a frame of that very time


@dataclass(frozen=True, eq=False)
class Timing:
    """When each frame is shown, in ticks of ``base`` seconds counted from the first one's appearance."""

    base: Fraction
    ticks: np.ndarray
    """int64 ``[F]``, at least one, strictly rising from 0."""
    end: int
    """Tick at which the last frame ends."""
    origin: Fraction = Fraction(0)
    """Seconds of the file's own clock, which its sound has too, at tick 0."""
    from_first: bool = True
    """Whether these begin with the file's first frame, so that sound before it belongs to them."""
    to_last: bool = True
    """Whether these end with the file's last frame, so that sound after it belongs to them."""

    @classmethod
    def constant(
        cls,
        fps: Fraction,
        count: int,
        origin: Fraction = Fraction(0),
        from_first: bool = True,
        to_last: bool = True,
    ) -> "Timing":
        """``count`` frames, ``fps`` a second."""
        return cls(1 / fps, np.arange(count, dtype=np.int64), count, origin, from_first, to_last)

    def __len__(self) -> int:
        return len(self.ticks)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Timing):
            return NotImplemented
        mine, theirs = ({**vars(timing), "ticks": timing.ticks.tolist()} for timing in (self, other))
        return mine == theirs

    @property
    def durations(self) -> np.ndarray:
        """int64 ``[F]``: for how many ticks each frame is shown."""
        return np.diff(self.ticks, append=self.end)

    @property
    def seconds(self) -> np.ndarray:
        """float64 ``[F]``: seconds from the first frame's appearance to each one's."""
        return self.ticks * float(self.base)

    @property
    def duration(self) -> Fraction:
        """Seconds from the first frame's appearance to the last one's end."""
        return self.end * self.base

    @property
    def is_constant(self) -> bool:
        """Whether all frames are shown equally long."""
        return bool((self.durations == self.end // len(self)).all())

    @property
    def fps(self) -> Fraction:
        """Frames a second: the exact rate where it is constant, otherwise the average, a fraction as of ``rate``."""
        average = len(self) / self.duration
        return average if self.is_constant else _simple(average)

    def part(self, first: int, stop: int) -> "Timing":
        """The timing of the frames ``first`` to ``stop - 1``."""
        begun = int(self.ticks[first])
        return replace(
            self,
            ticks=self.ticks[first:stop] - begun,
            end=(int(self.ticks[stop]) if stop < len(self) else self.end) - begun,
            origin=self.origin + begun * self.base,
            from_first=self.from_first and first == 0,
            to_last=self.to_last and stop == len(self),
        )

    def cut(self, start: float | None, end: float | None, name: str) -> tuple[int, "Timing"]:
        """Keep the frames whose time ``t`` has ``start <= t < end``, in seconds from the first; None is no bound.

        The last frame ends with the range, as far as ticks allow. Also returns the index of the first.

        Raises:
            UserError: a bound is negative or no number, or no frame lies between them; ``name`` says whose.
        """
        low, high = _bound("start", start, name), _bound("end", end, name)
        if low is not None and low + _A_MICROSECOND > self.duration:
            raise UserError(f"start is {start:g} s, but {name} lasts {float(self.duration):g} s; give an earlier start")
        if low is not None and high is not None and low >= high:
            raise UserError(f"the range from {start:g} s to {end:g} s of {name} is empty; end must come after start")
        first = self._index(low) if low is not None else 0
        stop = self._index(high) if high is not None else len(self)
        if first >= stop:
            raise UserError(f"no frame of {name} begins in the range; widen start and end")
        kept = self.part(first, stop)
        if high is None or high >= self.duration:
            return first, kept
        limit = self._tick(high) - int(self.ticks[first])
        shown_till = min(kept.end, max(limit, int(kept.ticks[-1]) + 1))
        return first, replace(kept, end=shown_till, to_last=kept.to_last and shown_till == kept.end)

    def resampled(self, fps: Fraction) -> tuple[np.ndarray, "Timing"]:
        """At a constant rate: int64 ``[G]``, which frame is shown at each moment, and when the moments are.

        A moment shows the latest frame due within half a period.
        """
        count = max(1, round(self.duration * fps))
        grid = Timing.constant(fps, count, self.origin, self.from_first, self.to_last)
        halfway = (np.arange(len(grid)) + 0.5) / float(fps * self.base)
        picked = np.searchsorted(self.ticks, halfway) - 1
        return np.maximum(picked, 0), grid

    def _index(self, seconds: Fraction) -> int:
        return int(np.searchsorted(self.ticks, self._tick(seconds)))

    def _tick(self, seconds: Fraction) -> int:
        return math.ceil((seconds - _A_MICROSECOND) / self.base)


def rate(fps: Fraction | float) -> Fraction:
    """A number of frames a second as a fraction with denominator at most 1001, as those of all standards.

    Raises:
        UserError: it is not a number above 0.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise UserError(f"fps is {fps}; it must be a number above 0")
    return _simple(Fraction(fps))


def _simple(fps: Fraction) -> Fraction:
    return max(fps.limit_denominator(_LARGEST_DENOMINATOR), Fraction(1, _LARGEST_DENOMINATOR))


def _bound(label: str, seconds: float | None, name: str) -> Fraction | None:
    if seconds is None:
        return None
    if not math.isfinite(seconds) or seconds < 0:
        raise UserError(f"{label} is {seconds:g} s; of {name} give seconds from 0 on")
    return Fraction(seconds)
