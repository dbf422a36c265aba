"""What raters see, in which order, under names that tell nothing."""

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
    """One question to a rater: an edit to rate, or two of the same source to choose between."""

    key: str
    rows: tuple[EditRow, ...]


def items_of(rows: Sequence[EditRow], mode: Mode) -> list[Item]:
    """Every edit; or of every source all pairs of methods."""
    if mode == "ratings":
        return [Item(_token("item", row.name), (row,)) for row in rows]
    groups: dict[str, list[EditRow]] = {}
    for row in rows:
        groups.setdefault(row.id, []).append(row)
    pairs = (pair for group in groups.values() for pair in itertools.combinations(group, 2))
    return [Item(_token("item", *(row.name for row in pair)), pair) for pair in pairs]


def order_for(items: Sequence[Item], rater: str, seed: int) -> list[Item]:
    """A rater's own order, and of each pair the side; the same for the same rater and seed."""
    draw = random.Random(f"{seed} {rater}")
    shuffled = list(items)
    draw.shuffle(shuffled)
    return [Item(item.key, item.rows[::-1] if draw.random() < 0.5 else item.rows) for item in shuffled]


def rater_key(name: str) -> str:
    """What stands for a rater in files: no name, and the same for the same name."""
    return _token("rater", name.strip().casefold())


def blind(path: Path, folder: Path, seed: int) -> Path:
    """A copy of a video for any browser, 8-bit H.264 without sound, metadata or telling name; made once.

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
