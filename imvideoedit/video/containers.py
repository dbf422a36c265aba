"""Opening and closing media files so that what goes wrong reaches the user as one line."""

import contextlib
import os.path
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar, cast

import av
from av.codec.context import CodecContext
from av.container import InputContainer
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from imvideoedit.common.errors import UserError

# What is read, by ffmpeg's names. Not read are lists of other files and addresses (hls, concat, dash, sdp), text drawn
# as characters (tty), scripts and devices.
_VIDEOS = "mov matroska avi mpegts mpeg mpegvideo asf flv live_flv ogg nut mxf gxf lxf dv rm wtv nsv nuv pva dhav swf"
_STREAMS = "h261 h263 h264 hevc vvc evc m4v av1 obu ivf vc1 vc1test dirac dnxhd cavsvideo avs2 avs3 mjpeg mjpeg_2000"
_PICTURES = "gif apng ico image2 yuv4mpegpipe jpegxl_anim " + " ".join(
    f"{name}_pipe"
    for name in "bmp dds dpx exr gif hdr j2k jpeg jpegls jpegxl jpegxs pam pbm pcx pfm pgm pgmyuv phm png ppm psd qoi "
    "sgi sunrast tiff webp xbm xpm xwd".split()
)
_SOUNDS = "wav w64 mp3 aac loas ac3 eac3 flac amr aiff au caf dts dtshd truehd mlp tta wv ape tak dsf"
_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(f"{_VIDEOS} {_STREAMS} {_PICTURES} {_SOUNDS}".split()),
    "pattern_type": "none",  # a picture's name with %d in it names that picture, not a series
}
_PHOTOS = {"heic", "heix", "heim", "mif1", "avif"}  # brands of photos, and of sequences of them, in mp4's structure
_SEQUENCES = {"heis", "hevc", "hevx", "msf1", "avis"}
# ffmpeg's own decoders of these leave out the transparency, which lies beside each packet.
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_Item = TypeVar("_Item")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Open a media file for reading; no file but this one is ever opened.

    Raises:
        UserError: the file is missing, unreadable, empty, or has neither video nor sound.
    """
    if not os.path.isfile(path):  # unlike pathlib, takes names of any length
        raise UserError(f"there is no file {path}; check the path")
    try:
        # An absolute path cannot be taken for a URL.
        container = av.open(str(path.absolute()), options=_OPTIONS)
    except av.error.ArgumentError as error:
        raise UserError(f"{path} is of no known format; give a video or image file") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UserError(f"cannot read {path} as a video: {reason(error)}; give a video or image file") from error
    with container:
        if not (container.streams.video or container.streams.audio):
            raise UserError(f"{path} is no video: it has neither video nor sound; give a video or image file")
        yield container


def video_stream(container: InputContainer) -> VideoStream | None:
    """The first video stream that is not a cover image, or None; of a sequence of photos not its title photo."""
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if container.metadata.get("major_brand") in _SEQUENCES:
        streams.sort(key=lambda stream: stream.frames <= 1)
    return next(iter(streams), None)


def is_still(container: InputContainer) -> bool:
    """Whether an opened file is a single image in a format of its own."""
    name = container.format.name
    return name == "image2" or name.endswith("_pipe")


def is_photo(container: InputContainer) -> bool:
    """Whether an opened file is a HEIC photo, or another in its structure, not a video."""
    return container.metadata.get("major_brand") in _PHOTOS


def hides_alpha(stream: VideoStream) -> bool:
    """Whether a stream has transparency that its usual decoder does not give."""
    return stream.metadata.get("alpha_mode") == "1" and stream.codec_context.name in _WITH_ALPHA


def checked(path: Path, items: Iterator[_Item]) -> Iterator[_Item]:
    """Yield decoded frames or packets; damage raises a ``UserError`` that says how far the file is good."""
    count = 0
    try:
        for item in items:
            yield item
            count += 1
    except av.FFmpegError as error:
        raise UserError(
            f"{path} is damaged after frame or packet {count} ({reason(error)}); re-encode or cut it"
        ) from error


def decoded(path: Path, container: InputContainer) -> Iterator[VideoFrame]:
    """The frames of an opened video in the order of showing.

    Raises:
        UserError: the file holds only sound; while iterating: it is damaged, or holds no frame.
    """
    stream = video_stream(container)
    if stream is None:
        raise UserError(f"{path} holds no frames, only sound; give a video or image file")
    stream.thread_type = "AUTO"
    empty = True
    frames = _with_alpha(container, stream) if hides_alpha(stream) else container.decode(stream)
    for frame in checked(path, frames):
        yield frame
        empty = False
    if empty:
        raise UserError(f"{path} holds no frame that can be decoded; give another video")


def _with_alpha(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    decoder = cast(VideoCodecContext, CodecContext.create(_WITH_ALPHA[stream.codec_context.name], "r"))
    for packet in container.demux(stream):
        yield from decoder.decode(packet if packet.size else None)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the disk or the encoder into a ``UserError`` that names the output."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        refused = isinstance(error, (av.error.ArgumentError, av.error.ExternalError))
        remedy = "another codec or size may do" if refused else "check the free space and the folder's permissions"
        raise UserError(f"could not write {path}: {reason(error)}; {remedy}") from error


def reason(error: Exception) -> str:
    """The short cause of an error of ffmpeg or the system, without its file name."""
    return getattr(error, "strerror", None) or str(error)
