"""Animated WebP and AVIF, of which ffmpeg reads no picture or only the first, read with Pillow."""

from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from imvideoedit.common.errors import UserError
from imvideoedit.video.images import has_alpha, to_rgb
from imvideoedit.video.info import VideoInfo
from imvideoedit.video.pictures import open_picture
from imvideoedit.video.timing import Timing

_MILLISECOND = Fraction(1, 1000)


def needs_pillow(path: Path) -> bool:
    """Whether an animation is one of these; of others ffmpeg knows all pictures and their exact times."""
    with open_picture(path) as image:
        return image.format in ("WEBP", "AVIF")


class AnimationSource:
    """All pictures of an animated WebP or AVIF, of which ffmpeg reads none or one, as the source of a clip."""

    def __init__(self, path: Path) -> None:
        self._path = path
        starts, ends = [], []
        with open_picture(path) as image:
            width, height = image.size
            for picture in self._pictures(image):
                starts.append(int(picture.info["timestamp"]))
                ends.append(starts[-1] + max(int(picture.info["duration"]), 1))
        timing = Timing(_MILLISECOND, np.array(starts, np.int64) - starts[0], ends[-1] - starts[0])
        if timing.is_constant:
            timing = Timing.constant(timing.fps, len(timing))
        self.info = VideoInfo(width, height, False, 0, timing, alpha=has_alpha(path))

    def frames(self, first: int) -> Iterator[tuple[int, partial[np.ndarray]]]:
        with open_picture(self._path) as image:
            for index, picture in enumerate(self._pictures(image)):
                if index >= first:
                    yield index, partial(self._rgb, picture)

    def _rgb(self, picture: Image.Image) -> np.ndarray:
        return np.asarray(to_rgb(picture, str(self._path)))

    def _pictures(self, image: Image.Image) -> Iterator[Image.Image]:
        try:
            for picture in ImageSequence.Iterator(image):
                picture.load()
                yield picture
        except (OSError, ValueError, RuntimeError, SyntaxError) as error:
            raise UserError(f"{self._path} is damaged ({error}); make the animation anew") from error
