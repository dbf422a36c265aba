"""Read video files as upright uint8 RGB frames with the time each is shown at; ``VideoWriter`` writes them.

Every frame of a file is read once, also at a variable rate; a constant rate is made only on request.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from imvideoedit.video.animations import AnimationSource, needs_pillow
from imvideoedit.video.colour import check_colours, frame_format
from imvideoedit.video.containers import decoded, opened, video_stream
from imvideoedit.video.images import has_alpha, load_rgb
from imvideoedit.video.info import VideoInfo
from imvideoedit.video.kinds import kind_of
from imvideoedit.video.listing import decoded_from, list_frames
from imvideoedit.video.origin import tells_origin
from imvideoedit.video.pngs import png_texts
from imvideoedit.video.stills import names_still, still_texts
from imvideoedit.video.timing import Timing, rate
from imvideoedit.video.writer import VideoWriter, write_video

__all__ = [
    "Clip",
    "VideoInfo",
    "VideoWriter",
    "read_metadata",
    "read_video",
    "write_video",
]

STILL_FPS = Fraction(1)
_HDR = ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL", "DYNAMIC_HDR_PLUS", "DOVI_METADATA")

_Indexed = tuple[int, "partial[np.ndarray]"]
"""A frame's index in its file, and a call that gives its pixels."""


class Clip:
    """A video file, or a range of one, to be read as often as wanted; a still image is one frame that lasts a second.

    An animated PNG, GIF, WebP or AVIF is a video. What is transparent is shown on white, as in stills.

    Iterating yields uint8 ``[H, W, 3]`` frames, decoding them anew and holding one at a time; ``len`` is their number
    and ``info`` says the rest.

    Args:
        path: any video or image file.
        start: seconds from the file's first frame; frames that appear earlier are left out.
        end: seconds from the file's first frame; frames that appear then or later are left out.
        fps: show the frames at this constant rate instead of at their own times; some may repeat or drop out.

    Raises:
        UserError: the file is missing, is no video, or its first frame cannot be decoded; the range is empty or wrong.
            While iterating: the file is damaged.
    """

    def __init__(
        self,
        path: Path | str,
        start: float | None = None,
        end: float | None = None,
        fps: Fraction | float | None = None,
    ) -> None:
        self.path = Path(path)
        wanted_rate = rate(fps) if fps is not None else None
        self._source = _open_source(self.path)
        first, timing = self._source.info.timing.cut(start, end, str(self.path))
        self._picked = np.arange(first, first + len(timing))
        if wanted_rate is not None:
            picked, timing = timing.resampled(wanted_rate)
            self._picked = first + picked
        self.info = replace(self._source.info, timing=timing)

    @property
    def file_frames(self) -> int:
        """Number of frames in the file, also where a range of it is read."""
        return self._source.info.frames

    @property
    def indices(self) -> np.ndarray:
        """int64 ``[F]``, never falling: the place in the file of each frame."""
        return self._picked

    def along(self, other: "Clip") -> "Clip":
        """The frames of this file at the places and times of the other's, whose file has as many."""
        if self.file_frames != other.file_frames:
            raise ValueError(f"{self.path} has {self.file_frames} frames, {other.path} {other.file_frames}")
        clip = copy.copy(self)
        clip._picked, clip.info = other.indices, replace(self.info, timing=other.info.timing)
        return clip

    def __len__(self) -> int:
        return len(self._picked)

    def __iter__(self) -> Iterator[np.ndarray]:
        taken = 0
        for index, frame in self._source.frames(int(self._picked[0])):
            while taken < len(self) and self._picked[taken] == index:
                yield frame()
                taken += 1
            if taken == len(self):
                return


def _open_source(path: Path) -> "_StillSource | AnimationSource | _VideoSource":
    kind = kind_of(path)
    if kind == "still":
        return _StillSource(path)
    if kind == "animation" and needs_pillow(path):
        return AnimationSource(path)
    return _VideoSource(path)


class _StillSource:
    """One image, as the source of a clip."""

    def __init__(self, path: Path) -> None:
        self._path = path
        height, width = load_rgb(path).shape[:2]
        timing = Timing.constant(STILL_FPS, 1)
        self.info = VideoInfo(width, height, False, 0, timing, alpha=has_alpha(path), exif=tells_origin(path))

    def frames(self, first: int) -> Iterator[_Indexed]:
        yield first, partial(load_rgb, self._path)


class _VideoSource:
    """All frames of a video, as the source of a clip."""

    def __init__(self, path: Path) -> None:
        self._path = path
        listing = list_frames(path)
        with opened(path) as container:
            first = next(decoded(path, container))
            stream = video_stream(container)
            assert listing is not None and stream is not None
            self._format = frame_format(first, stream.sample_aspect_ratio)
            check_colours(self._format.colour, str(path))
            interlaced = bool(first.interlaced_frame)
            # ffmpeg gives every GIF an alpha channel.
            alpha = self._format.alpha and not (container.format.name == "gif" and self._format.is_opaque(first))
            hdr = tuple(name for name in _HDR if cast(Any, first.side_data).get(name) is not None)
            has_audio = bool(container.streams.audio)
        self._listing = listing
        height, width = self._format.size
        timing = listing.timing()
        self.info = VideoInfo(
            width,
            height,
            has_audio,
            self._format.rotation,
            timing,
            self._format.colour,
            self._format.aspect,
            alpha=alpha,
            interlaced=interlaced,
            hdr=hdr,
        )

    def frames(self, first: int) -> Iterator[_Indexed]:
        for index, frame in decoded_from(self._path, self._listing, first):
            yield index, partial(self._format.rgb, frame)


def read_video(
    path: Path | str,
    max_frames: int | None = None,
    start: float | None = None,
    end: float | None = None,
    fps: Fraction | float | None = None,
) -> tuple[np.ndarray, VideoInfo]:
    """Read a video, a range of one, or the first ``max_frames`` frames of it, into memory: uint8 ``[F, H, W, 3]``.

    The info is that of the frames in the array; the other arguments and the errors are those of ``Clip``.
    """
    clip = Clip(path, start, end, fps)
    count = len(clip) if max_frames is None else min(max_frames, len(clip))
    video_FHWC = np.stack(list(islice(clip, count)))
    return video_FHWC, replace(clip.info, timing=clip.info.timing.part(0, count))


def read_metadata(path: Path | str) -> dict[str, str]:
    """The key-value texts of a video, a picture or a folder of PNGs, those of ``VideoWriter`` among them.

    In .mkv and .webm all keys are in small letters.

    Raises:
        UserError: the file is missing or no video.
    """
    path = Path(path)
    if path.is_dir():
        return png_texts(path)
    if names_still(path) or path.suffix.lower() == ".bmp":
        return still_texts(path)
    with opened(path) as container:
        capitals = container.format.name.startswith("matroska")
        return {key.lower() if capitals else key: text for key, text in container.metadata.items()}
