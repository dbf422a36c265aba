"""Carrying the sound of one file over to another while its picture is written anew."""

import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from imvideoedit.data.containers import checked
from imvideoedit.data.timing import Grid

Track = Callable[[Packet | None], list[Packet]]
"""Takes a packet of the source, or None at the end, and gives those to write."""


class SoundCopy:
    """Feeds all sound tracks of ``source`` into ``output``, a little at a time as the picture grows.

    Tracks are copied packet for packet where the output's format takes their codec, and encoded as AAC where not.
    Make it before the first packet is written.

    Args:
        source: just opened; its packets are read from here.
        output: where a picture stream has been added already.
        picture: when the source's pictures are shown, so that sound and picture stay together; None for pure sound.
    """

    def __init__(self, source: InputContainer, output: OutputContainer, picture: Grid | None) -> None:
        self._output = output
        self._start = picture.start if picture else Fraction(0)
        self._picture = picture
        self._tracks = {stream.index: self._track(stream) for stream in source.streams.audio}
        wanted = [stream for stream in source.streams.audio if self._tracks[stream.index] is not None]
        packets = source.demux(*wanted) if wanted else iter(())
        self._packets: Iterator[Packet] = checked(Path(source.name), packets)
        self._pending: Packet | None = next(self._packets, None)

    def advance(self, seconds: Fraction) -> None:
        """Write the sound that starts before ``seconds``."""
        while self._pending is not None:
            packet = self._pending
            if packet.dts is not None and packet.dts * packet.time_base - self._start >= seconds:
                return
            self._write(packet)
            self._pending = next(self._packets, None)

    def finish(self, seconds: Fraction) -> None:
        """Write what is left, unless the source's picture goes on beyond ``seconds`` (a clip was taken of it)."""
        if self._picture is not None and self._picture.duration - 1 / self._picture.fps < seconds:
            while self._pending is not None:
                self._write(self._pending)
                self._pending = next(self._packets, None)
        for track in self._tracks.values():
            if track is not None:
                self._output.mux(track(None))

    def _write(self, packet: Packet) -> None:
        track = self._tracks[packet.stream.index]
        if track is None or packet.dts is None:
            return
        shift = round(self._start / packet.time_base)
        packet.dts -= shift
        packet.pts = packet.pts - shift if packet.pts is not None else packet.dts
        self._output.mux(track(packet))

    def _track(self, stream: AudioStream) -> Track | None:
        try:
            return _copy_to(self._output.add_stream_from_template(stream))
        except ValueError:
            if stream.codec_context is None:
                warnings.warn(f"sound track {stream.index} has an unknown codec and is left out", stacklevel=2)
                return None
            encoded = self._output.add_stream("aac", rate=stream.rate)
            encoded.layout = stream.layout
            return _encode_to(encoded)


def _copy_to(output: AudioStream) -> Track:
    def copy(packet: Packet | None) -> list[Packet]:
        if packet is None:
            return []
        packet.stream = output
        return [packet]

    return copy


def _encode_to(output: AudioStream) -> Track:
    def encode(packet: Packet | None) -> list[Packet]:
        if packet is None:
            return output.encode(None)
        return [encoded for frame in packet.decode() for encoded in output.encode(cast(AudioFrame, frame))]

    return encode
