"""The codecs videos are written with, and encoding of frames into an open container."""

import contextlib
import functools
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
from av.codec.codec import Codec, UnknownCodecError
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from imvideoedit.common.errors import UserError
from imvideoedit.video.colour import FULL, Colour
from imvideoedit.video.priority import same_scheduling
from imvideoedit.video.stills import STILLS, names_still

FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}


@dataclass(frozen=True)
class Kind:
    """A codec videos are written with; without an encoder, numbered PNG files."""

    suffixes: tuple[str, ...]
    encoder: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    crf: int | None = None
    """The usual quality in the encoder's scale; None if nothing is lost."""
    worst_crf: int | None = None


KINDS = {
    "h264": Kind((".mp4", ".mov", ".mkv"), "libx264", crf=18, worst_crf=51),
    # With B-frames, x265 gives videos shorter than its delay random time stamps.
    "h265": Kind(
        (".mp4", ".mov", ".mkv"), "libx265", {"x265-params": "log-level=error", "bf": "0"}, crf=20, worst_crf=51
    ),
    "av1": Kind((".webm", ".mp4", ".mkv"), "libsvtav1", {"preset": "8"}, crf=24, worst_crf=63),
    "lossless": Kind((".mp4", ".mov", ".mkv"), "libx264rgb", {"qp": "0"}),
    "png": Kind(()),
}
STILL = "still"  # chosen by the name alone, for one picture
# The most frames a second that SVT-AV1 accepts; times are kept whatever rate it is given.
_SVT_FASTEST = Fraction(240)
# Below it x265's assembler writes past its buffers.
_X265_NARROWEST = 64
_BY_SUFFIX = {".mp4": "h264", ".mov": "h264", ".mkv": "h264", ".webm": "av1"}


def choose_codec(path: Path | str, codec: str | None = None) -> str:
    """The codec to write ``path`` with: ``codec``, or the usual one for the name's suffix if None.

    ``h264``, ``h265`` and ``lossless`` go into .mp4, .mov and .mkv; ``av1`` into .webm, .mp4 and .mkv; ``png`` into a
    folder. ``lossless`` is h264 in RGB without quantisation: larger, not for every player, and exact to the bit. The
    name of a picture, such as one in .jpg, gives ``STILL``.

    Raises:
        UserError: there is no such codec, or the name does not fit it.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if names_still(path):
        if codec is not None:
            raise UserError(f"{path} is a picture, which has no codec; leave out {codec}, or give another name")
        return STILL
    if codec is None:
        if suffix not in _BY_SUFFIX:
            pictures = f"of a picture in {_either(STILLS)}"
            raise UserError(f"cannot write {path}: the name of a video must end in {_either(FORMATS)}, {pictures}")
        return _BY_SUFFIX[suffix]
    if codec not in KINDS:
        raise UserError(f"there is no codec {codec}; choose {_either(KINDS)}")
    kind = KINDS[codec]
    if kind.encoder is None:
        if suffix in FORMATS:
            raise UserError(f"cannot write {path} as {codec}, which makes a folder; name it {path.with_suffix('')}")
        return codec
    if suffix not in kind.suffixes:
        usual = f", or change the codec to {_BY_SUFFIX[suffix]}" if suffix in _BY_SUFFIX else ""
        raise UserError(f"cannot write {path} as {codec}: its name must end in {_either(kind.suffixes)}{usual}")
    try:
        Codec(kind.encoder, "w")
    except UnknownCodecError as error:
        raise UserError(f"{codec} cannot be written here: PyAV lacks {kind.encoder}; choose another codec") from error
    return codec


class FrameEncoder:
    """Encodes RGB frames into a new video stream of ``output``.

    Args:
        output: nothing has been written to it yet.
        codec: a key of ``KINDS`` that has an encoder.
        size: height and width, kept exactly.
        base: seconds of a tick.
        fps: the usual number of frames a second; a hint to the encoder.
        constant: whether all frames last equally long.
        colour: how to code it.
        aspect: a pixel's width by its height.
        crf: quality in the encoder's scale; its usual one if None.
    """

    def __init__(
        self,
        output: OutputContainer,
        codec: str,
        size: tuple[int, int],
        base: Fraction,
        fps: Fraction,
        constant: bool,
        colour: Colour,
        aspect: Fraction,
        crf: int | None,
    ) -> None:
        kind = KINDS[codec]
        assert kind.encoder is not None
        options = dict(kind.options)
        if kind.crf is not None:
            options["crf"] = str(kind.crf if crf is None else crf)
        if not constant and codec != "av1":
            # mp4 keeps a frame's duration only without B-frames.
            options["bf"] = "0"
        self._output, self._base, self._durations = output, base, dict[int, int]()
        self._colour = Colour(FULL, 0, colour.primaries, colour.transfer) if codec == "lossless" else colour
        if kind.encoder.startswith("libx264") and _has_avx512():
            # Its code for AVX-512 (core 165) reads memory that it never wrote, for the trees of macroblocks: the same
            # frames become other bytes each time, up to 30 grey levels apart. That for AVX2 does not.
            options["x264-params"] = "asm=AVX2"
        if codec == "h265" and size[1] < _X265_NARROWEST:
            options["x265-params"] += ":asm=0"
        if codec == "av1":
            os.environ.setdefault("SVT_LOG", "1")  # errors only; its greeting cannot be turned off otherwise
            fps = min(fps, _SVT_FASTEST)
        stream = output.add_stream(kind.encoder, rate=fps, options=options, width=size[1], height=size[0])
        self._stream = cast(VideoStream, stream)
        context = self._stream.codec_context
        context.pix_fmt = "rgb24" if codec == "lossless" else _pixel_format(context.codec, colour, size)
        context.time_base = base
        context.sample_aspect_ratio = aspect
        context.color_range = self._colour.range
        context.colorspace = self._colour.matrix
        context.color_primaries = self._colour.primaries
        context.color_trc = self._colour.transfer
        if codec == "h265" and output.format.name in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # Apple's players know no other

    @property
    def stream(self) -> VideoStream:
        """The stream that is written."""
        return self._stream

    def add(self, frame_HWC: np.ndarray, tick: int, duration: int) -> None:
        """Encode a uint8 ``[H, W, 3]`` frame that is shown from ``tick`` on for ``duration`` ticks."""
        frame = self._colour.coded(frame_HWC, self._stream.codec_context.pix_fmt or "rgb24")
        frame.pts, frame.time_base = tick, self._base
        self._durations[tick] = duration
        self._write(frame)

    def finish(self) -> None:
        """Write what the encoder still holds."""
        self._write(None)

    def _write(self, frame: VideoFrame | None) -> None:
        # The encoder and its threads begin with the first frame.
        with same_scheduling() if not self._stream.codec_context.is_open else contextlib.nullcontext():
            packets = self._stream.encode(frame)
        for packet in packets:
            packet.duration = self._durations.pop(cast(int, packet.pts))
            self._output.mux(packet)


def _pixel_format(codec: Codec, colour: Colour, size: tuple[int, int]) -> str:
    """The source's own depth and chroma where the encoder has them and the size lets it; otherwise the nearest."""
    odd = bool(size[0] % 2 or size[1] % 2)
    known = {video_format.name for video_format in codec.video_formats or ()}
    depths = ["10le", ""] if colour.bits > 8 else [""]
    wanted = [f"yuv{chroma}p{depth}" for chroma in ("444" if odd else colour.subsampling, "420") for depth in depths]
    return next(name for name in wanted if name in known)


@functools.cache
def _has_avx512() -> bool:
    """Whether the processor has AVX-512, as encoders use it; known on Linux only."""
    try:
        return "avx512bw" in Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False


def _either(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
