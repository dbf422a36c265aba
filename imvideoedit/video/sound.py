"""Copy the sound of one file, and its subtitles, to another whose frames are encoded anew."""

import io
import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.stream import AudioStream
from av.codec.codec import Codec
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.subtitles.stream import SubtitleStream

from imvideoedit.common.errors import UserError
from imvideoedit.video.carried import carry_names
from imvideoedit.video.containers import checked, reason

_COMMON_RATE = 48_000


class SoundCopy:
    """Feeds all sound tracks of ``source`` into ``output``, in step with the frames.

    Tracks are copied packet for packet where the output's format takes their codec, and encoded anew where not.
    Make it before the first packet is written.

    Args:
        source: just opened; its packets are read from here.
        output: with its video stream added already.
        zero: seconds of the source's clock that are 0 in the output, so that sound and frames stay in sync.
        begin: seconds of the source's clock; packets that end by then are left out. None for all.
        encoder: for tracks that cannot be copied, ``aac`` or ``libopus``.
        subtitles: whether to copy the subtitles that the output can hold, too.
    """

    def __init__(
        self,
        source: InputContainer,
        output: OutputContainer,
        zero: Fraction,
        begin: Fraction | None = None,
        encoder: str = "aac",
        subtitles: bool = False,
    ) -> None:
        self._name, self._zero, self._begin = source.name, zero, begin
        self._shift: dict[int, int] = {}
        self._last: dict[int, int] = {}
        self._ended: dict[int, int] = {}
        tracks = [(stream.index, _track(stream, output, encoder)) for stream in source.streams.audio]
        if subtitles:
            tracks += [(stream.index, _subtitle_track(stream, output)) for stream in source.streams.subtitles]
        self._tracks = {index: track for index, track in tracks if track is not None}
        wanted = [source.streams[index] for index in self._tracks]
        packets = map(self._continued, source.demux(*wanted)) if wanted else iter(())
        self._packets: Iterator[Packet] = checked(Path(source.name), packets)
        self._pending: Packet | None = next(self._packets, None)

    @property
    def kept(self) -> set[int]:
        """Indices of the source's streams that are written."""
        return set(self._tracks)

    def advance(self, seconds: Fraction) -> None:
        """Write the sound that starts before ``seconds`` of the output's clock, as far as packets are in order."""
        while self._pending is not None and self._starts(self._pending) < seconds:
            self._write(self._pending)
            self._pending = next(self._packets, None)

    def finish(self, seconds: Fraction | None) -> None:
        """Write the rest of the sound that starts before ``seconds`` of the output's clock; all of it if None."""
        waiting = set(self._tracks)
        while self._pending is not None and waiting:
            if seconds is None or self._starts(self._pending) < seconds:
                self._write(self._pending)
            else:
                waiting.discard(self._pending.stream.index)
            self._pending = next(self._packets, None)
        for track in self._tracks.values():
            track.write(None)

    def _continued(self, packet: Packet) -> Packet:
        """A packet whose time follows the one before also where files were joined and their clock begins again."""
        if packet.dts is None:
            return packet
        index = packet.stream.index
        dts = packet.dts + self._shift.get(index, 0)
        last, ended = self._last.get(index, dts), self._ended.get(index, dts)
        if dts < last:
            self._shift[index] = self._shift.get(index, 0) + ended - dts
            dts = ended
        packet.pts = packet.pts - packet.dts + dts if packet.pts is not None else None
        packet.dts = dts
        self._last[index], self._ended[index] = dts, max(ended, dts + (packet.duration or 0))
        return packet

    def _starts(self, packet: Packet) -> Fraction:
        """Second of the output's clock; packets without one count as due."""
        return packet.dts * packet.time_base - self._zero if packet.dts is not None else Fraction(0)

    def _write(self, packet: Packet) -> None:
        if packet.dts is None:
            return
        ended = (packet.dts + (packet.duration or 0)) * packet.time_base
        if self._begin is not None and ended <= self._begin:
            return
        dts = packet.dts - round(self._zero / packet.time_base)
        packet.pts = packet.pts - packet.dts + dts if packet.pts is not None else dts
        packet.dts = dts
        if packet.stream.type == "subtitle" and dts < 0:  # shown before the range, too
            packet.duration = max((packet.duration or 0) + dts, 0)
            packet.pts = packet.dts = 0
        try:
            self._tracks[packet.stream.index].write(packet)
        except av.error.ArgumentError as error:
            raise UserError(
                f"the sound of {self._name} cannot be copied ({reason(error)}); make its times anew first, such as "
                "by ffmpeg -i IN -c:v copy -c:a aac OUT.mkv"
            ) from error


def first_sound(source: InputContainer) -> Fraction | None:
    """Seconds of the file's clock at which its first sound is heard; None if it has none or does not say."""
    starts = [
        Fraction(stream.start_time * stream.time_base)
        for stream in source.streams.audio
        if stream.start_time is not None and stream.time_base is not None
    ]
    return min(starts, default=None)


class _Copied:
    def __init__(self, output: OutputContainer, stream: AudioStream | SubtitleStream) -> None:
        self._output, self._stream = output, stream

    def write(self, packet: Packet | None) -> None:
        if packet is not None:
            packet.stream = self._stream
            self._output.mux(packet)


class _Encoded:
    def __init__(self, output: OutputContainer, stream: AudioStream) -> None:
        self._output, self._stream = output, stream

    def write(self, packet: Packet | None) -> None:
        if packet is None:
            self._output.mux(self._stream.encode(None))
            return
        try:
            frames = packet.decode()
        except av.FFmpegError:
            warnings.warn(f"a damaged piece of sound is left out: track {packet.stream.index}", stacklevel=2)
            return
        for frame in frames:
            self._output.mux(self._stream.encode(cast(AudioFrame, frame)))


def _track(source: AudioStream, output: OutputContainer, encoder: str) -> _Copied | _Encoded | None:
    if source.codec_context is None:
        warnings.warn(f"sound track {source.index} has an unknown codec and is left out", stacklevel=2)
        return None
    track: _Copied | _Encoded
    if _takes(output.format.name, source):
        stream = output.add_stream_from_template(source)
        stream.codec_context.layout = _layout(source)
        track = _Copied(output, stream)
    else:
        rates = Codec(encoder, "w").audio_rates
        usable = not rates or source.rate in rates
        stream = cast(AudioStream, output.add_stream(encoder, rate=source.rate if usable else _COMMON_RATE))
        stream.layout = _layout(source)
        track = _Encoded(output, stream)
    stream.disposition = source.disposition
    carry_names(source, stream)
    return track


def _layout(source: AudioStream) -> AudioLayout:
    """Where each channel is heard; where the file says only how many there are, as AVI does, the usual places."""
    named = all(channel.name != "NONE" for channel in source.layout.channels)
    return source.layout if named else AudioLayout(f"{source.layout.nb_channels}c")


def _subtitle_track(source: SubtitleStream, output: OutputContainer) -> _Copied | None:
    if source.codec_context is None or not _takes(output.format.name, source):
        return None
    stream = output.add_stream_from_template(source)
    stream.disposition = source.disposition
    carry_names(source, stream)
    return _Copied(output, stream)


def _takes(container: str, source: AudioStream | SubtitleStream) -> bool:
    # What ffmpeg lists for a format is not all that it then writes, so a header is tried.
    try:
        with av.open(io.BytesIO(), "w", format=container) as trial:
            trial.add_stream_from_template(source)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True
