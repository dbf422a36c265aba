"""Write frames and sound into one container."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer, OutputContainer

from imvideoedit.video.carried import carry_chapters, carry_names, carry_texts, name_losses
from imvideoedit.video.colour import Colour
from imvideoedit.video.containers import opened, video_stream
from imvideoedit.video.encoder import FORMATS, FrameEncoder
from imvideoedit.video.info import VideoInfo
from imvideoedit.video.listing import list_frames
from imvideoedit.video.sound import SoundCopy, first_sound
from imvideoedit.video.timing import Timing

_MP4_OPTIONS = {"movflags": "+faststart+use_metadata_tags", "movie_timescale": "90000"}
_FINE_TICK = Fraction(1, 90_000)


@dataclass(frozen=True)
class OutputSpec:
    """The checked arguments of ``VideoWriter``."""

    path: Path
    codec: str
    fps: Fraction
    like: VideoInfo | None = None
    sound: Path | None = None
    carries: bool = False
    """Whether ``sound`` is the source, of which also subtitles, chapters and texts are kept."""
    metadata: dict[str, str] = field(default_factory=dict)
    crf: int | None = None

    @property
    def suffix(self) -> str:
        """In small letters."""
        return self.path.suffix.lower()


class Muxer:
    """Encodes frames, and copies sound, into ``target``.

    Args:
        target: the file to write, of any name.
        spec: of the video.
        stack: closes what is opened here.

    Raises:
        UserError: the sound cannot be read.
    """

    def __init__(self, target: Path, spec: OutputSpec, stack: contextlib.ExitStack) -> None:
        self._target, self._spec, self._stack, self._count = target, spec, stack, 0
        self._timing: Timing | None = None
        self._source: InputContainer | None = None
        self._sound: SoundCopy | None = None
        self._encoder: FrameEncoder | None = None
        if spec.sound is not None:
            self._timing = spec.like.timing if spec.like is not None else _timing_of(spec.sound)
            self._source = stack.enter_context(opened(spec.sound))
        self._lead = self._early_sound()
        base = 1 / spec.fps if spec.like is None else spec.like.timing.base
        # Ticks of the source are split only where early sound needs finer ones.
        self._split = ceil(base / _FINE_TICK) if self._lead else 1
        self._base = base / self._split
        self._ended = Fraction(0)

    def add(self, frame_HWC: np.ndarray) -> None:
        """Write the next frame, uint8 ``[H, W, 3]``, and the sound until its end."""
        if self._encoder is None:
            self._encoder = self._start(frame_HWC.shape[0], frame_HWC.shape[1])
        begun, ended = self._shown(self._count)
        first = round(self._lead / self._base)
        self._encoder.add(frame_HWC, first + begun * self._split, (ended - begun) * self._split)
        self._ended = self._lead + ended * self._split * self._base
        if self._sound is not None:
            self._sound.advance(self._ended)
        self._count += 1

    def finish(self) -> None:
        """Flush the encoder, and write the sound after the last frame if it belongs to this video."""
        assert self._encoder is not None
        self._encoder.finish()
        if self._sound is not None:
            self._sound.finish(None if self._reaches_the_end() else self._ended)

    def _start(self, height: int, width: int) -> FrameEncoder:
        spec, like = self._spec, self._spec.like
        options = _MP4_OPTIONS if spec.suffix in (".mp4", ".mov") else {}
        name = str(self._target.absolute())
        output = av.open(name, "w", format=FORMATS[spec.suffix], options=options)
        self._stack.enter_context(_closing(output))
        if self._source is not None and spec.carries:
            carry_texts(self._source, output)
        output.metadata.update(spec.metadata)
        encoder = FrameEncoder(
            output,
            spec.codec,
            size=(height, width),
            base=self._base,
            fps=spec.fps,
            constant=like is None or like.timing.is_constant,
            colour=Colour() if like is None else like.colour.stated(like.stored_height, height),
            aspect=Fraction(1) if like is None else like.aspect,
            crf=spec.crf,
        )
        if self._source is not None:
            self._copy(self._source, output, encoder)
        return encoder

    def _copy(self, source: InputContainer, output: OutputContainer, encoder: FrameEncoder) -> None:
        """Begin the tracks that are copied; all must be known before the first packet."""
        spec = self._spec
        origin = self._timing.origin if self._timing is not None else Fraction(0)
        complete = self._timing is None or self._timing.from_first
        zero, begin = origin - self._lead, None if complete else origin
        opus = "libopus" if spec.suffix == ".webm" else "aac"
        self._sound = SoundCopy(source, output, zero, begin, opus, subtitles=spec.carries)
        if not spec.carries:
            return
        stream = video_stream(source)
        if stream is not None:
            carry_names(stream, encoder.stream)
        if spec.like is not None:
            carry_chapters(source, output, zero, self._lead + spec.like.timing.duration)
            name_losses(spec.path, spec.like, source, self._sound.kept, set(spec.metadata))

    def _shown(self, index: int) -> tuple[int, int]:
        """The ticks, before splitting, at which a frame's show begins and ends."""
        if self._spec.like is None:
            return index, index + 1
        timing = self._spec.like.timing
        return int(timing.ticks[index]), int(timing.ticks[index + 1]) if index + 1 < len(timing) else timing.end

    def _early_sound(self) -> Fraction:
        """Seconds for which sound is heard before the first frame appears."""
        if self._source is None or self._timing is None or not self._timing.from_first:
            return Fraction(0)
        start = first_sound(self._source)
        return max(Fraction(0), self._timing.origin - start) if start is not None else Fraction(0)

    def _reaches_the_end(self) -> bool:
        """Whether these are the last frames of the file the sound is from."""
        if self._timing is None:
            return False
        if self._spec.like is not None:
            return self._timing.to_last
        return self._timing.duration - 1 / self._timing.fps < self._count / self._spec.fps


def _timing_of(path: Path) -> Timing | None:
    listing = list_frames(path)
    return listing.timing() if listing is not None else None


@contextlib.contextmanager
def _closing(output: OutputContainer) -> Iterator[None]:
    try:
        yield
    except BaseException:
        # The file is dropped; an error of closing it must not hide the first one.
        with contextlib.suppress(av.FFmpegError, OSError):
            output.close()
        raise
    output.close()
