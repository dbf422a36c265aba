"""Writing videos frame by frame, with the timing, colour and sound of the video they were made from."""

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing
from imvideoedit.video.carried import name_losses
from imvideoedit.video.containers import writing
from imvideoedit.video.encoder import KINDS, STILL, choose_codec
from imvideoedit.video.info import VideoInfo
from imvideoedit.video.kinds import kind_of
from imvideoedit.video.muxer import Muxer, OutputSpec
from imvideoedit.video.origin import origin_of
from imvideoedit.video.pngs import PngFolder, new_folder
from imvideoedit.video.stills import StillFile, check_still
from imvideoedit.video.timing import rate


class VideoWriter:
    """Writes frames one at a time into a file that appears when the ``with`` block ends, or not at all.

    Their size is kept, whatever it is. Even sizes are stored with the source's chroma (as yuv420p by default, which
    plays everywhere), odd ones as yuv444p, the only way most codecs keep them. In .mp4 and .mov every frame's time
    is kept exactly; .mkv and .webm round times to milliseconds. A folder of PNGs has neither times nor sound.

    Args:
        path: .mp4, .mov, .mkv or .webm, a folder, or of one frame a picture such as .jpg, see ``choose_codec``.
        like: ``info`` of the video the frames belong to, one frame for each of its: their times, how colour is coded,
            the bit depth (where the codec has it) and the shape of a pixel are kept. The size may differ.
        fps: without ``like``, frames a second; rounded to a fraction with denominator <= 1001.
        sound: a file whose sound is copied, packet for packet where the format takes the codec, else as AAC, in .webm
            as Opus. Of a range only the sound during it, to the packet; with ``like``, the file that it describes.
        source: the file that ``like`` describes, instead of ``sound``: besides its sound, its subtitles, chapters,
            texts and tracks' names, and of a photo camera, date, author and place, are kept where the format holds
            them; what is lost is a ``Note``.
        metadata: texts for ``read_metadata``.
        codec: ``h264``, ``h265``, ``av1``, ``lossless`` or ``png``; by the name if None.
        crf: quality in the codec's own scale, 0 the best; the codec's usual one if None. Not for lossless and png.

    Raises:
        UserError: the name, quality or shape of a pixel does not fit the codec, or the frames a picture. On entering
            and in ``add``: the sound cannot be read, or the disk refuses the file.
        ValueError: both or neither of ``like`` and ``fps`` are given. At the end of the block: there are no frames, or
            not as many as ``like`` has.
    """

    def __init__(
        self,
        path: Path | str,
        like: VideoInfo | None = None,
        *,
        fps: Fraction | float | None = None,
        sound: Path | str | None = None,
        source: Path | str | None = None,
        metadata: dict[str, str] | None = None,
        codec: str | None = None,
        crf: int | None = None,
    ) -> None:
        if (like is None) == (fps is None):
            raise ValueError("give either like or fps")
        if source is not None and (sound is not None or like is None):
            raise ValueError("source goes with like, and without sound")
        self.path = Path(path)
        self.count = 0
        """Frames added so far."""
        self._like = like
        self._source = Path(source) if source is not None else None
        carries = self._source is not None and kind_of(self._source) == "video"
        heard = self._source if carries else sound
        self._spec = OutputSpec(
            path=self.path,
            codec=choose_codec(self.path, codec),
            fps=like.fps if like is not None else rate(fps or 0),
            like=like,
            sound=Path(heard) if heard is not None else None,
            carries=carries,
            metadata=metadata or {},
            crf=crf,
        )
        _check(self.path, self._spec)
        self._shape: tuple[int, ...] | None = None
        self._origin: Image.Exif | None = None

    def __enter__(self) -> "VideoWriter":
        self._stack = stack = contextlib.ExitStack()
        with writing(self.path), contextlib.ExitStack() as failing:
            failing.push(stack)
            self._sink = self._open_sink(stack)
            if self._source is not None and self._like is not None and not self._is_named_by_muxer():
                lost = self._like if self._origin is None else replace(self._like, exif=False)
                name_losses(self.path, lost, None, set(), set())
            failing.pop_all()
        return self

    def _is_named_by_muxer(self) -> bool:
        return self._spec.carries and isinstance(self._sink, Muxer)

    def _open_sink(self, stack: contextlib.ExitStack) -> Muxer | PngFolder | StillFile:
        codec = self._spec.codec
        if codec != STILL and KINDS[codec].encoder is None:
            return PngFolder(stack.enter_context(new_folder(self.path)), self._spec.metadata)
        target = stack.enter_context(replacing(self.path))
        target.touch()  # fails now where the folder cannot be written to
        if codec == STILL:
            if self._source is not None and not self._spec.carries:
                self._origin = origin_of(self._source, self.path)
            return StillFile(target, self._spec.metadata, self._origin)
        return Muxer(target, self._spec, stack)

    def add(self, frame_HWC: np.ndarray) -> None:
        """Write the next frame, uint8 ``[H, W, 3]``.

        Raises:
            UserError: the disk refuses it, or the sound cannot be read.
            ValueError: it differs from the first in size or type, or ``like`` has no more frames.
        """
        self._shape = self._shape or frame_HWC.shape
        if frame_HWC.dtype != np.uint8 or frame_HWC.shape != self._shape or frame_HWC.shape[2:] != (3,):
            raise ValueError(f"frame {self.count + 1} is {frame_HWC.dtype} {frame_HWC.shape}, not uint8 {self._shape}")
        if self._like is not None and self.count == self._like.frames:
            raise ValueError(f"frame {self.count + 1} of a video of {self._like.frames} frames")
        if self._spec.codec == STILL:
            check_still(self.path, self.count + 1)
        with writing(self.path):
            self._sink.add(frame_HWC)
        self.count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with writing(self.path), self._stack:
            if self.count == 0:
                raise ValueError("no frames to write")
            if self._like is not None and self.count != self._like.frames:
                raise ValueError(f"only {self.count} of a video's {self._like.frames} frames were written")
            self._sink.finish()


def write_video(
    path: Path | str,
    frames: Iterable[np.ndarray],
    fps: Fraction | float | None = None,
    audio_from: Path | str | None = None,
    metadata: dict[str, str] | None = None,
    crf: int | None = None,
    *,
    like: VideoInfo | None = None,
    codec: str | None = None,
) -> None:
    """Write frames, an array ``[F, H, W, 3]`` or one at a time; arguments and errors are those of ``VideoWriter``.

    With ``fps``, sound of a source longer than the frames is cut at the last of them.
    """
    with VideoWriter(path, like, fps=fps, sound=audio_from, metadata=metadata, codec=codec, crf=crf) as writer:
        for frame_HWC in frames:
            writer.add(frame_HWC)


def _check(path: Path, spec: OutputSpec) -> None:
    if spec.codec == STILL:
        if spec.crf is not None:
            raise UserError(f"{path} is a picture, which takes no crf; leave it out")
        if spec.like is not None:
            check_still(path, spec.like.frames, (spec.like.height, spec.like.width))
        return
    worst = KINDS[spec.codec].worst_crf
    if spec.crf is not None and worst is None:
        raise UserError(f"{spec.codec} loses nothing, so it takes no crf; leave it out")
    if spec.crf is not None and worst is not None and not 0 <= spec.crf <= worst:
        raise UserError(f"crf is {spec.crf}; for {spec.codec} it lies between 0 and {worst}")
    # ffmpeg's muxers write a pixel's shape only where the stream has it, which AV1's encoder does not set.
    if spec.codec == "av1" and spec.suffix != ".mp4" and spec.like is not None and spec.like.aspect != 1:
        raise UserError(f"{path} cannot hold pixels that are not square as av1; name it {path.with_suffix('.mp4')}")
