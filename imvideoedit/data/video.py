"""Video files in and out, as uint8 RGB frames at a constant rate.

Reading turns rotated pictures upright and resamples variable frame rates onto a constant grid. Writing is
h264 in mp4, keeps the size, and carries the sound of the source over.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream

from imvideoedit.data.containers import checked, is_still, opened, picture_stream, writing
from imvideoedit.data.images import load_rgb
from imvideoedit.data.sound import SoundCopy
from imvideoedit.data.timing import Grid, read_grid, resample
from imvideoedit.errors import UserError
from imvideoedit.files import replacing

STILL_FPS = Fraction(1)
_AVCOL_SPC_UNSPECIFIED = 2


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says about itself; sizes are those of the upright picture."""

    frames: int
    fps: Fraction
    width: int
    height: int
    duration: float
    has_audio: bool
    rotation: int
    """Degrees, counter-clockwise, by which the stored picture was turned to stand upright: 0, 90, 180 or 270."""


def probe(path: Path | str) -> VideoInfo:
    """Describe a video or a still image by its header and first frame.

    ``fps`` is the constant rate the frames are read at, ``frames`` their number at that rate, ``duration`` in seconds.
    A still image is one frame that lasts a second.

    Raises:
        UserError: the file is missing, is no video, or its first frame cannot be decoded.
    """
    return open_video(path)[0]


def read_video(path: Path | str, max_frames: int | None = None) -> tuple[np.ndarray, VideoInfo]:
    """Read a whole video, or its first ``max_frames`` frames, into memory: uint8 ``[F, H, W, 3]``.

    ``frames`` of the returned info is the number of frames of the array.

    Raises:
        UserError: see ``iter_frames``.
    """
    info, frames = open_video(path)
    taken: list[np.ndarray] = []
    for frame_HWC in frames:
        if max_frames is not None and len(taken) >= max_frames:
            break
        taken.append(frame_HWC)
    return np.stack(taken), VideoInfo(**{**vars(info), "frames": len(taken)})


def iter_frames(path: Path | str) -> Iterator[np.ndarray]:
    """Yield uint8 ``[H, W, 3]`` frames at the constant rate ``probe(path).fps``, holding one at a time.

    Raises:
        UserError: the file is missing, is no video, or is damaged (also in the middle of it).
    """
    return open_video(path)[1]


def open_video(path: Path | str) -> tuple[VideoInfo, Iterator[np.ndarray]]:
    """``probe`` and ``iter_frames`` with the file opened once; it is closed when the frames are used up or dropped."""
    path = Path(path)
    frames = _decode(path)
    first = next(frames)
    assert isinstance(first, VideoInfo)
    return first, frames  # type: ignore[return-value]


def read_metadata(path: Path | str) -> dict[str, str]:
    """The container's key-value texts, those of ``write_video`` among them.

    Raises:
        UserError: the file is missing or no video.
    """
    with opened(Path(path)) as container:
        return dict(container.metadata)


def write_video(
    path: Path | str,
    frames: Iterable[np.ndarray],
    fps: Fraction | float,
    audio_from: Path | str | None = None,
    metadata: dict[str, str] | None = None,
    crf: int = 18,
) -> None:
    """Write frames as h264 mp4 of exactly their size, count and rate.

    Even sizes are stored as yuv420p, which plays everywhere; odd ones as yuv444p, the only way h264 keeps them.

    Args:
        path: must end in ``.mp4``; appears only once complete.
        frames: uint8 ``[H, W, 3]`` arrays of one size, or an array ``[F, H, W, 3]``; read one at a time.
        fps: frames per second; rounded to a fraction with denominator <= 1001.
        audio_from: a file whose sound is carried over, packet for packet where mp4 takes the codec, else as AAC.
            It is cut at the last frame when the source's picture goes on longer than the frames.
        metadata: texts for ``read_metadata``.
        crf: x264's quality, 0 (lossless) to 51.

    Raises:
        UserError: the name is not an mp4's, the sound cannot be read, or the disk refuses the file.
        ValueError: there are no frames, or they differ in size or type.
    """
    path, rate = Path(path), Fraction(fps).limit_denominator(1001)
    if path.suffix.lower() != ".mp4":
        raise UserError(f"cannot write {path}: the name of a video must end in .mp4")
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError("no frames to write")
    source_grid = _grid_of(Path(audio_from)) if audio_from is not None else None
    with writing(path), replacing(path) as temporary, contextlib.ExitStack() as stack:
        source = stack.enter_context(opened(Path(audio_from))) if audio_from is not None else None
        options = {"movflags": "+faststart+use_metadata_tags"}
        output = stack.enter_context(av.open(str(temporary.absolute()), "w", format="mp4", options=options))
        output.metadata.update(metadata or {})
        stream = _video_stream(output, first.shape, rate, crf)
        sound = SoundCopy(source, output, source_grid) if source is not None else None
        _encode(output, stream, chain([first], frames), rate, sound)


def _video_stream(output: OutputContainer, shape: tuple[int, ...], rate: Fraction, crf: int) -> VideoStream:
    height, width = shape[:2]
    odd = height % 2 or width % 2
    stream = output.add_stream("libx264", rate=rate, options={"crf": str(crf)}, width=width, height=height)
    context = stream.codec_context
    context.pix_fmt = "yuv444p" if odd else "yuv420p"
    context.time_base = 1 / rate
    context.color_range = ColorRange.MPEG
    context.colorspace = Colorspace.ITU709
    context.color_primaries = ColorPrimaries.BT709
    context.color_trc = ColorTrc.BT709
    return stream


def _encode(
    output: OutputContainer,
    stream: VideoStream,
    frames: Iterable[np.ndarray],
    rate: Fraction,
    sound: SoundCopy | None,
) -> None:
    context, shape, count = stream.codec_context, None, 0
    for count, frame_HWC in enumerate(frames, start=1):
        shape = shape or frame_HWC.shape
        if frame_HWC.dtype != np.uint8 or frame_HWC.shape != shape or frame_HWC.shape[2:] != (3,):
            raise ValueError(f"frame {count} is {frame_HWC.dtype} {frame_HWC.shape}, not uint8 {shape}")
        rgb = VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")
        frame = rgb.reformat(format=context.pix_fmt, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
        frame.pts, frame.time_base = count - 1, 1 / rate
        output.mux(stream.encode(frame))
        if sound is not None:
            sound.advance(count / rate)
    output.mux(stream.encode(None))
    if sound is not None:
        sound.finish(count / rate)


def _decode(path: Path) -> Iterator[VideoInfo | np.ndarray]:
    """Yield the info, then the frames: a generator, so that the file closes with it."""
    with opened(path) as container:
        if is_still(container):
            image_HWC = load_rgb(path)
            height, width = image_HWC.shape[:2]
            yield VideoInfo(1, STILL_FPS, width, height, float(1 / STILL_FPS), False, 0)
            yield image_HWC
            return
    grid = _grid_of(path)
    with opened(path) as container:
        stream = picture_stream(container)
        if stream is None:
            raise UserError(f"{path} holds no picture, only sound; give a video or image file")
        stream.thread_type = "AUTO"
        decoded = checked(path, container.decode(stream))
        first = next(decoded, None)
        if first is None or grid is None:
            raise UserError(f"{path} holds no picture that can be decoded; give another video")
        info = _describe(first, grid, bool(container.streams.audio))
        yield info
        for frame in resample(chain([first], decoded), grid):
            yield _upright(frame, first, info.rotation)


def _grid_of(path: Path) -> Grid | None:
    # Opened for itself alone, as not every format can seek back after its packets have been read.
    with opened(path) as container:
        stream = picture_stream(container)
        return read_grid(stream, checked(path, container.demux(stream))) if stream is not None else None


def _describe(first: VideoFrame, grid: Grid, has_audio: bool) -> VideoInfo:
    rotation = round(first.rotation / 90) * 90 % 360
    height, width = (first.width, first.height) if rotation % 180 else (first.height, first.width)
    return VideoInfo(grid.count, grid.fps, width, height, float(grid.duration), has_audio, rotation)


def _upright(frame: VideoFrame, first: VideoFrame, rotation: int) -> np.ndarray:
    # Files that do not say follow the players' convention: BT.709 from 720 lines on, BT.601 below.
    unspecified = frame.colorspace == _AVCOL_SPC_UNSPECIFIED and not frame.format.is_rgb
    colorspace = (Colorspace.ITU709 if first.height >= 720 else Colorspace.ITU601) if unspecified else None
    rgb = frame.to_ndarray(format="rgb24", width=first.width, height=first.height, src_colorspace=colorspace)
    return np.ascontiguousarray(np.rot90(rgb, rotation // 90))
