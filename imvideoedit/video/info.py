"""A video's size, timing, colour and sound."""

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from imvideoedit.video.colour import Colour
from imvideoedit.video.timing import Timing


@dataclass(frozen=True)
class VideoInfo:
    """A video or a part of one, as it is read; sizes are those of the upright frame."""

    width: int
    height: int
    has_audio: bool
    rotation: int
    """Degrees, counter-clockwise, by which the stored frame was turned to stand upright: 0, 90, 180 or 270."""
    timing: Timing
    """When each frame is shown."""
    colour: Colour = field(default_factory=Colour)
    """As the file stores it; frames are always read as RGB."""
    aspect: Fraction = Fraction(1)
    """A pixel's width by its height when shown; 1 for all but old formats."""
    alpha: bool = False
    """Whether the file has transparency, which frames show on white."""
    interlaced: bool = False
    """Whether a frame holds two fields of different times, which are read as they are stored."""
    hdr: tuple[str, ...] = ()
    """ffmpeg's names of data on HDR that frames carry beside their pixels."""
    exif: bool = False
    """Whether a photo says its camera, date, place or author."""

    @property
    def frames(self) -> int:
        """Number of frames, at least 1."""
        return len(self.timing)

    @property
    def fps(self) -> Fraction:
        """Frames a second: the exact rate where it is constant, otherwise the average."""
        return self.timing.fps

    @property
    def duration(self) -> float:
        """Seconds from the first frame's appearance to the last one's end."""
        return float(self.timing.duration)

    @property
    def times(self) -> np.ndarray:
        """float64 ``[F]``: seconds from the first frame's appearance to each one's; exact in ``timing``."""
        return self.timing.seconds

    @property
    def stored_height(self) -> int:
        """Lines of the frame before it was turned upright."""
        return self.width if self.rotation % 180 else self.height
