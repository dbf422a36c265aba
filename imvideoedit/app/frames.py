"""Source and result for the page: single frames, and both side by side as a video."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from imvideoedit.editing.job import Job
from imvideoedit.video.colour import Colour
from imvideoedit.video.display import enlarged, fitted, shown_size
from imvideoedit.video.reader import Clip, VideoWriter


def frame_pair(job: Job, index: int) -> tuple[np.ndarray, np.ndarray]:
    """The same frame of source and result, uint8 ``[H, W, 3]``; small ones enlarged.

    Args:
        index: from the first frame that was edited; beyond the last one it is the last.

    Raises:
        UserError: a file is damaged or gone.
    """
    times, edited_times = Clip(job.input).info.times, Clip(job.output).info.times
    index = min(index, len(edited_times) - 1)
    first = int(np.searchsorted(times, (job.start or 0) - 1e-6))
    source_HWC = next(iter(Clip(job.input, start=float(times[first + index]))))
    edited_HWC = next(iter(Clip(job.output, start=float(edited_times[index]))))
    return enlarged(source_HWC), enlarged(edited_HWC)


def write_comparison(job: Job, path: Path, check: Callable[[], None]) -> None:
    """Write source and result side by side, with the sound: small 8-bit H.264, which any browser plays.

    Args:
        check: called before each frame; may raise to stop.

    Raises:
        UserError: a file is damaged, or the disk refuses it.
    """
    source, result = Clip(job.input, job.start, job.end), Clip(job.output)
    height, width = shown_size(source.info.height, source.info.width)
    colour = Colour(primaries=source.info.colour.primaries, transfer=source.info.colour.transfer)
    like = replace(source.info, height=height, width=2 * width, colour=colour)
    sound = job.input if source.info.has_audio else None
    with VideoWriter(path, like, sound=sound) as writer:
        for pair in zip(source, result, strict=True):
            check()
            writer.add(np.concatenate([fitted(frame_HWC, height, width) for frame_HWC in pair], axis=1))
