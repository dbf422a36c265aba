"""The frames of a video file: how many, their time stamps, and decoding from any of them on."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from imvideoedit.common.errors import UserError
from imvideoedit.video.containers import checked, decoded, opened, video_stream
from imvideoedit.video.timing import Timing

_FALLBACK_FPS = Fraction(25)
# Of these each packet is a frame with a reliable time stamp; others must be decoded to be listed.
_PLAIN_CODECS = {"h264", "hevc", "vp9", "av1", "prores", "mjpeg"}
_PLAIN_CONTAINERS = ("mov", "matroska", "avi")

Stamp = tuple[int | None, int]
"""When a frame appears and for how long, in the stream's own ticks; None and 0 if the file does not say."""


@dataclass(frozen=True)
class Listing:
    """The frames of a stream in the order of showing."""

    count: int
    base: Fraction
    """Seconds of a tick."""
    stamps: np.ndarray | None
    """int64 ``[F]``, never falling, in ticks of the file's own clock; None where frames carry no usable ones."""
    last: int
    """Ticks for which the last frame is shown; 0 if unknown."""
    rates: tuple[Fraction, ...]
    """Rates that the file states or its first frames suggest."""
    keys: np.ndarray
    """int64, rising: stamps of frames that decoding can begin with; empty if that is not known."""
    first: int = 0
    """The first frame's stamp, also where the others run backwards, as in files that were joined."""

    def timing(self) -> Timing:
        """When each frame is shown.

        A stated rate is taken for exact where every stamp is that rate's, rounded to the container's ticks, and
        frames without stamps are spaced by it. Otherwise the stamps hold; those that coincide are pulled apart.
        """
        if self.stamps is None:
            return Timing.constant(self.rates[0] if self.rates else _FALLBACK_FPS, self.count, self.first * self.base)
        ticks, origin = self.stamps - self.stamps[0], int(self.stamps[0]) * self.base
        steps = np.arange(self.count)
        for fps in self.rates:
            step = float(1 / (fps * self.base))
            if np.all(np.abs(ticks - steps * step) < 1) and (self.last == 0 or abs(self.last - step) <= 1):
                return Timing.constant(fps, self.count, origin)
        ticks = np.maximum.accumulate(ticks - steps) + steps
        return Timing(self.base, ticks, int(ticks[-1]) + max(1, self.last or self._usual(ticks)), origin)

    def seek_for(self, index: int) -> tuple[int, int] | None:
        """The stamp to seek so that decoding gives the frame ``index``, and that frame's own.

        None where decoding must begin, or may as well, at the beginning of the file.
        """
        if self.stamps is None:
            return None
        wanted = int(self.stamps[index])
        place = int(np.searchsorted(self.keys, wanted, side="right")) - 1
        return (int(self.keys[place]), wanted) if place > 0 else None

    def _usual(self, ticks: np.ndarray) -> int:
        if self.count > 1:
            return round(int(ticks[-1]) / (self.count - 1))
        return round(1 / ((self.rates[0] if self.rates else _FALLBACK_FPS) * self.base))


def list_frames(path: Path) -> Listing | None:
    """Find a video's frames, without decoding where its packets suffice; None if it has only sound.

    Raises:
        UserError: it is no video, cannot be decoded, or is damaged.
    """
    with opened(path) as container:
        stream = video_stream(container)
        if stream is None:
            return None
        if stream.codec_context is None:
            raise UserError(f"{path} has a video codec that cannot be decoded here; convert it first")
        if _is_plain(container, stream):
            listing = _from_packets(stream, checked(path, container.demux(stream)))
            if listing is not None:
                return listing
    # Opened anew, as not every format can seek back.
    with opened(path) as container:
        counted = [(frame.pts, frame.duration or 0) for frame in decoded(path, container)]
        stream = video_stream(container)
        assert stream is not None
        return _listing(stream, counted, [])


def _from_packets(stream: VideoStream, packets: Iterable[Packet]) -> Listing | None:
    """The listing that packets give without decoding; None if something about them is odd."""
    # Only the stamps are kept: the packets of a long video are as large as its file.
    shown: list[tuple[int, int]] = []
    keys: list[int] = []
    for packet in packets:
        if not packet.size:
            continue
        if packet.is_corrupt or packet.pts is None or not (keys or packet.is_keyframe):
            return None
        if packet.is_keyframe:
            keys.append(packet.pts)
        if not packet.is_discard:
            shown.append((packet.pts, packet.duration or 0))
    # Frames before the first keyframe depend on others that were cut away.
    complete = bool(shown) and min(shown)[0] >= keys[0]
    return _listing(stream, sorted(shown), sorted(keys)) if complete else None


def _is_plain(container: InputContainer, stream: VideoStream) -> bool:
    # AVI has no presentation stamps: where the codec reorders frames, ffmpeg's are in decoding order.
    reordered = container.format.name == "avi" and stream.codec_context.has_b_frames
    known = stream.codec_context.codec.canonical_name in _PLAIN_CODECS
    return known and container.format.name.startswith(_PLAIN_CONTAINERS) and not reordered


def _listing(stream: VideoStream, shown: Sequence[Stamp], keys: list[int]) -> Listing:
    given = [pts for pts, _ in shown if pts is not None]
    stamped = len(given) == len(shown) and given == sorted(given)
    stated = [stream.average_rate, stream.guessed_rate, stream.base_rate]
    if stamped:  # of several rates that fit, cameras mean a standard one
        stated.sort(key=lambda fps: fps is None or fps.denominator not in (1, 1001))
    else:  # elementary streams have only the codec's own rate, which ffmpeg guesses by
        stated.insert(0, stream.guessed_rate)
    return Listing(
        count=len(shown),
        base=stream.time_base or Fraction(1, 1000),
        stamps=np.array(given, np.int64) if stamped else None,
        last=shown[-1][1],
        rates=tuple(dict.fromkeys(fps for fps in stated if fps)),
        keys=np.array(keys, np.int64),
        first=given[0] if len(given) == len(shown) else 0,
    )


def decoded_from(path: Path, listing: Listing, first: int) -> Iterator[tuple[int, VideoFrame]]:
    """Yield each frame from index ``first`` on, or from an earlier one, with its index in the listing.

    Where the decoder gives no frame for an index, the frame before is repeated, as in a player.

    Raises:
        UserError: while iterating: the file is damaged, or holds no frame.
    """
    seek = listing.seek_for(first)
    if seek is not None:
        key, wanted = seek
        with opened(path) as container:
            container.seek(key, stream=video_stream(container))
            frames = decoded(path, container)
            reached = next(frames)
            # Where a file's seek index is wrong, all is read from the beginning instead.
            if reached.pts is not None and reached.pts <= wanted:
                yield from _placed(chain([reached], frames), listing, first)
                return
    with opened(path) as container:
        yield from _placed(decoded(path, container), listing, 0)


def _placed(frames: Iterator[VideoFrame], listing: Listing, index: int) -> Iterator[tuple[int, VideoFrame]]:
    shown = next(frames)
    for frame in chain([shown], frames):
        if listing.stamps is not None and frame.pts is not None:
            while index < listing.count and listing.stamps[index] < frame.pts:
                yield index, shown
                index += 1
            if index < listing.count and frame.pts < listing.stamps[index]:
                shown = frame
                continue
        if index == listing.count:
            return
        yield index, frame
        shown, index = frame, index + 1
    for late in range(index, listing.count):
        yield late, shown
