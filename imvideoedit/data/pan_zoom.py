"""Short clips from still images: a camera that pans and zooms over them, the same for both images of a pair."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

SMALLEST = 0.75  # of the image's side that the camera sees at least


@dataclass(frozen=True)
class CameraPath:
    """What a camera sees first and last, as shares of the image: left, top and side of a square in [0, 1]."""

    first: tuple[float, float, float]
    last: tuple[float, float, float]

    @classmethod
    def sample(cls, rng: np.random.Generator) -> "CameraPath":
        """Two random views."""
        first, last = (cls._view(rng) for _ in range(2))
        return cls(first, last)

    @staticmethod
    def _view(rng: np.random.Generator) -> tuple[float, float, float]:
        side = float(rng.uniform(SMALLEST, 1))
        return float(rng.uniform(0, 1 - side)), float(rng.uniform(0, 1 - side)), side

    def film(self, image_HWC: np.ndarray, frames: int) -> np.ndarray:
        """The clip: uint8 ``[frames, H, W, 3]`` from a uint8 image ``[H, W, 3]``; the camera moves evenly."""
        height, width = image_HWC.shape[:2]
        picture = Image.fromarray(image_HWC)
        clip = []
        for share in np.linspace(0, 1, frames):
            left, top, side = (1 - share) * np.array(self.first) + share * np.array(self.last)
            box = (left * width, top * height, (left + side) * width, (top + side) * height)
            clip.append(np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC, box)))
        return np.stack(clip)
