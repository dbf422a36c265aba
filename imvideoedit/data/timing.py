"""When the pictures of a video are shown: from a file's time stamps to a constant rate."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

_FALLBACK_FPS = Fraction(25)


@dataclass(frozen=True)
class Grid:
    """``count`` moments at ``fps`` a second, the first at ``start`` seconds of the file's own clock.

    ``stamped`` is False where pictures carry no stamps, or useless ones; they are then evenly spaced.
    """

    start: Fraction
    fps: Fraction
    count: int
    stamped: bool = True

    @property
    def duration(self) -> Fraction:
        """Seconds from the first picture's appearance to the last one's end."""
        return self.count / self.fps

    def slot(self, time: Fraction) -> int:
        """Index of the moment nearest to ``time`` seconds; may lie outside the grid."""
        return round((time - self.start) * self.fps)


def read_grid(stream: VideoStream, packets: Iterable[Packet]) -> Grid | None:
    """The time grid of a stream, from all its packets' stamps, without decoding; None if it holds no pictures.

    A rate the container states is taken if it gives every picture its own moment, in order and without a gap.
    Otherwise the rate varies, whatever the container states, and the average one is taken.
    """
    # Only the stamps are kept: the packets of a long video are as large as its file.
    found = [(packet.pts, packet.duration or 0) for packet in packets if packet.size and not packet.is_discard]
    if not found:
        return None
    stated = [rate for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
    given = [(pts, duration) for pts, duration in found if pts is not None]
    if len(given) < len(found):
        return Grid(Fraction(0), stated[0] if stated else _FALLBACK_FPS, len(found), stamped=False)
    stamps = sorted(given)
    # AVI has no stamps for showing: where the codec reorders pictures, ffmpeg's are in the order of decoding.
    stamped = not (given == stamps and stream.codec_context.has_b_frames)
    base = stream.time_base or Fraction(1, 1000)
    times = [stamp * base for stamp, _ in stamps]
    for rate in stated:
        grid = Grid(times[0], rate, len(times), stamped)
        if all(grid.slot(time) == index for index, time in enumerate(times)):
            return grid
    span = times[-1] - times[0]
    last = stamps[-1][1] * base or span / max(1, len(times) - 1)
    if span + last == 0:
        return Grid(times[0], _FALLBACK_FPS, 1)
    rate = (len(times) / (span + last)).limit_denominator(1001) or Fraction(1, 1001)
    return Grid(times[0], rate, max(1, round((span + last) * rate)))


def resample(frames: Iterable[VideoFrame], grid: Grid) -> Iterator[VideoFrame]:
    """Put decoded frames on the grid: ``grid.count`` of them.

    A frame is repeated until the next one's moment; of frames that share a moment the last stays. At a
    constant rate every frame has its own, so nothing changes.
    """
    held, emitted = None, 0
    for index, frame in enumerate(frames):
        slot = index
        if grid.stamped and frame.pts is not None and frame.time_base is not None:
            slot = grid.slot(frame.pts * frame.time_base)
        while held is not None and emitted < min(slot, grid.count):
            yield held
            emitted += 1
        held = frame
    while held is not None and emitted < grid.count:
        yield held
        emitted += 1
