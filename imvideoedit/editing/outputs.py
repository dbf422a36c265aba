"""Files that edits are written to."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from imvideoedit.video.reader import Clip, VideoWriter
from imvideoedit.video.stills import names_still

WriteFrame = Callable[[np.ndarray], None]
"""Takes the next frame, uint8 ``[H, W, 3]``."""


@contextlib.contextmanager
def frame_writer(path: Path, clip: Clip, codec: str | None, texts: dict[str, str]) -> Iterator[WriteFrame]:
    """A function that writes the next frame of an edited clip; the file appears complete when the block ends.

    Args:
        clip: the source, whose times, colours, sound and the like the output keeps where its format can.
        texts: for the file's metadata.

    Raises:
        UserError: the disk refuses the file, or its name fits neither the codec nor the number of frames.
    """
    # A list's codec is for its videos.
    chosen = None if names_still(path) else codec
    with VideoWriter(path, clip.info, source=clip.path, metadata=texts, codec=chosen) as writer:
        yield writer.add
