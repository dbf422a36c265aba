"""What a video is apart from its pictures."""

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from imvideoedit.video.picture import Colour
from imvideoedit.video.timing import Timing


@dataclass(frozen=True)
class VideoInfo:
    """A video or a part of one, as it is read; sizes are those of the upright picture."""

    width: int
    height: int
    has_audio: bool
    rotation: int
    """Degrees, counter-clockwise, by which the stored picture was turned to stand upright: 0, 90, 180 or 270."""
    timing: Timing
    """When each picture is shown."""
    colour: Colour = field(default_factory=Colour)
    """As the file stores it; frames are always read as RGB."""
    aspect: Fraction = Fraction(1)
    """A pixel's width by its height when shown; 1 for all but old formats."""

    @property
    def frames(self) -> int:
        """Number of pictures, at least 1."""
        return len(self.timing)

    @property
    def fps(self) -> Fraction:
        """Pictures a second: the exact rate where it is constant, otherwise the average."""
        return self.timing.fps

    @property
    def duration(self) -> float:
        """Seconds from the first picture's appearance to the last one's end."""
        return float(self.timing.duration)

    @property
    def times(self) -> np.ndarray:
        """float64 ``[F]``: seconds from the first picture's appearance to each one's; exact in ``timing``."""
        return self.timing.seconds

    @property
    def stored_height(self) -> int:
        """Lines of the picture before it was turned upright."""
        return self.width if self.rotation % 180 else self.height
