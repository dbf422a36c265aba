"""Files that edits are written to: they appear complete or not at all, stills like videos."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from imvideoedit.common.files import replacing
from imvideoedit.editing.job_folders import STILLS
from imvideoedit.video.containers import writing
from imvideoedit.video.pngs import save_png
from imvideoedit.video.reader import Clip, VideoWriter

WriteFrame = Callable[[np.ndarray], None]
"""Takes the next frame, uint8 ``[H, W, 3]``."""


@contextlib.contextmanager
def frame_writer(path: Path, clip: Clip, codec: str | None, texts: dict[str, str]) -> Iterator[WriteFrame]:
    """A function that writes the next frame of an edited clip; the file appears when the block ends.

    Args:
        clip: the source, whose times, colours and sound a video keeps.
        texts: for the file's metadata.

    Raises:
        UserError: the disk refuses the file, or its name does not fit the codec.
    """
    if path.suffix.lower() in STILLS:
        with _still_writer(path, texts) as write:
            yield write
        return
    sound = clip.path if clip.info.has_audio else None
    with VideoWriter(path, clip.info, sound=sound, metadata=texts, codec=codec) as writer:
        yield writer.add


@contextlib.contextmanager
def _still_writer(path: Path, texts: dict[str, str]) -> Iterator[WriteFrame]:
    # What the block itself raises is no error of this file, so only the steps that touch it are within `writing`.
    with contextlib.ExitStack() as stack:
        with writing(path):
            temporary = stack.enter_context(replacing(path))
            temporary.touch()  # fails before the model works where the folder cannot be written to

        def write(frame_HWC: np.ndarray) -> None:
            with writing(path):
                save_png(temporary, frame_HWC, texts)

        yield write
        with writing(path):
            stack.close()
