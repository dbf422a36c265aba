"""The questions of a study, their order, and blind copies of the videos."""

import hashlib
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imvideoedit.evaluation.edits.manifest import EditRow
from imvideoedit.video.display import fitted, shown_size
from imvideoedit.video.reader import Clip, VideoWriter

Mode = Literal["ratings", "pairs"]
MODES = ("ratings", "pairs")


@dataclass(frozen=True)
class Item:
    """One question: an edit to rate, or two edits of the same source to choose between."""

    key: str
    rows: tuple[EditRow, ...]


def items_of(rows: Sequence[EditRow], mode: Mode) -> list[Item]:
    """Every edit; or all pairs of methods of every source."""
    if mode == "ratings":
        return [Item(_token("item", row.name), (row,)) for row in rows]
    groups: dict[str, list[EditRow]] = {}
    for row in rows:
        groups.setdefault(row.id, []).append(row)
    pairs = (pair for group in groups.values() for pair in itertools.combinations(group, 2))
    return [Item(_token("item", *(row.name for row in pair)), pair) for pair in pairs]


def order_for(items: Sequence[Item], rater: str, seed: int) -> list[Item]:
    """A rater's own order, and the sides of each pair; deterministic for rater and seed."""
    draw = random.Random(f"{seed} {rater}")
    shuffled = list(items)
    draw.shuffle(shuffled)
    return [Item(item.key, item.rows[::-1] if draw.random() < 0.5 else item.rows) for item in shuffled]


def rater_key(name: str) -> str:
    """A hash that stands for a rater in files, in place of the name."""
    return _token("rater", name.strip().casefold())


def blind_copy(path: Path, folder: Path, seed: int) -> Path:
    """A copy of a video for any browser: 8-bit H.264 without sound, metadata or the original's name; made once.

    Raises:
        UserError: the video cannot be read.
    """
    target = folder / f"{_token(str(seed), str(path.absolute()))}.mp4"
    if not target.is_file():
        clip = Clip(path)
        size = shown_size(clip.info.height, clip.info.width)
        with VideoWriter(target, fps=clip.info.fps, codec="h264") as writer:
            for frame_HWC in clip:
                writer.add(fitted(frame_HWC, *size))
    return target


def _token(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]
