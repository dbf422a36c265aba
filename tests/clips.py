"""Clips as phones and cameras make them, written with PyAV alone, and what to tell them by."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

SOUND_RATE = 48_000


def flat_frames(levels: Iterable[int], height: int = 32, width: int = 48) -> np.ndarray:
    """Grey frames: of flat frames h264 loses next to nothing, so a level tells which frame it was."""
    return np.stack([np.full((height, width, 3), level, np.uint8) for level in levels])


def levels_of(video: Iterable[np.ndarray]) -> list[int]:
    """The levels of ``flat_frames``, rounded to tens."""
    return [int(round(frame.mean(), -1)) for frame in video]


def make_clip(
    path: Path,
    frames: np.ndarray,
    times: Sequence[int] | None = None,
    rate: int | Fraction = 20,
    last: int | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: int | None = None,
    mirrored: bool = False,
    tags: tuple[int, int, int, int] | None = None,
    aspect: Fraction | None = None,
    sounds: Sequence[str] = (),
    options: dict[str, str] | None = None,
) -> Path:
    """Write a clip; ``times`` and ``last``, the last frame's duration, are in ticks of 1 / rate seconds.

    ``tags`` are colour range, matrix, primaries and transfer; ``sounds`` names the codec of each track, a tone as long
    as the frame.
    """
    times = list(range(len(frames))) if times is None else times
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"crf": "10", **(options or {})})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        context = stream.codec_context
        context.time_base = 1 / Fraction(rate)
        if tags is not None:
            context.color_range, context.colorspace, context.color_primaries, context.color_trc = tags
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=mirrored)
        tracks = [container.add_stream(sound, rate=SOUND_RATE, layout="mono") for sound in sounds]
        for pts, frame_HWC in zip(times, frames, strict=True):
            frame = VideoFrame.from_ndarray(frame_HWC, format="rgb24").reformat(
                format=pix_fmt,
                dst_color_range=tags[0] if tags else None,
                dst_colorspace=tags[1] if tags else 5,
                threads=1,
            )
            frame.pts, frame.time_base = pts, 1 / Fraction(rate)
            _mux(container, stream, frame, times[-1], last)
        _mux(container, stream, None, times[-1], last)
        for track in tracks:
            _mux_tone(container, track, (times[-1] + 1) / Fraction(rate))
    return path


def _mux_tone(container, track, seconds):
    wave = (8000 * np.sin(np.arange(int(seconds * SOUND_RATE)) * 0.2)).astype(np.int16)[None]
    heard = AudioFrame.from_ndarray(wave, format="s16", layout="mono")
    heard.sample_rate, heard.pts = SOUND_RATE, 0
    container.mux(track.encode(heard))
    container.mux(track.encode(None))


def _mux(container, stream, frame, last_pts, last):
    for packet in stream.encode(frame):
        if packet.pts == last_pts and last is not None:
            packet.duration = last
        container.mux(packet)


def sound_packets(path: Path, track: int = 0) -> list[tuple[Fraction, bytes]]:
    """When each packet of a track begins, in seconds of the file's clock, and its bytes."""
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.audio[track])
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in packets if packet.pts is not None]


def shown_times(path: Path) -> list[Fraction]:
    """Seconds from the first frame's appearance to each one's, as PyAV alone decodes them."""
    with av.open(str(path)) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    return [time - times[0] for time in times]


def colour_tags(path: Path) -> tuple[int, int, int, int]:
    """Colour range, matrix, primaries and transfer as a file states them."""
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        return context.color_range, context.colorspace, context.color_primaries, context.color_trc
