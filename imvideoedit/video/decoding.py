"""Decode a listed video from any of its frames on."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from av.video.frame import VideoFrame

from imvideoedit.video.containers import decoded, opened, video_stream
from imvideoedit.video.listing import Listing


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
