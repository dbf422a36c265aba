"""The best and worst edits, frame by frame beside their source."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imvideoedit.editing.prompts import shrunk
from imvideoedit.evaluation.edits.scored import Scored
from imvideoedit.evaluation.edits.scores import Unscored
from imvideoedit.evaluation.edits.videos import sampled
from imvideoedit.evaluation.reporting.table import data_uri
from imvideoedit.video.strips import write_strip

COUNT = 3  # of the best and of the worst
COLUMNS = 6
SIDE = 160  # pixels of a frame's longer side


@dataclass(frozen=True)
class Strip:
    """An edit as a picture.

    Attributes:
        caption: which edit it is and what it got.
        picture: PNG as a data address.
        reasoning: a judge's words; empty if it said none.
    """

    caption: str
    picture: str
    reasoning: str


def extremes(scored: Sequence[Scored], measure: str, lower_is_better: bool) -> dict[str, list[Strip]]:
    """``<method>, best`` and ``<method>, worst`` by one measure; with few edits each is shown once."""
    strips: dict[str, list[Strip]] = {}
    for method in dict.fromkeys(one.row.method for one in scored):
        own = [one for one in scored if one.row.method == method and measure in one.numbers]
        own.sort(key=lambda one: one.numbers[measure], reverse=not lower_is_better)
        count = min(COUNT, (len(own) + 1) // 2)
        for name, chosen in (("best", own[:count]), ("worst", own[count:][::-1][:count])):
            drawn = [strip for one in chosen if (strip := _strip(one, measure)) is not None]
            if drawn:
                strips[f"{method}, {name}"] = drawn
    return strips


def _strip(one: Scored, measure: str) -> Strip | None:
    assert one.row.edited is not None
    try:
        rows = {
            label: np.stack(shrunk(sampled(path, COLUMNS), SIDE))
            for label, path in (("source", one.row.source), ("edited", one.row.edited))
        }
    except Unscored:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "strip.png"
        write_strip(path, rows, COLUMNS, scale=max(SIDE // max(rows["edited"].shape[1:3]), 1))
        picture = data_uri(path.read_bytes())
    caption = f"{one.row.instruction} ({one.row.id}): {one.numbers[measure]:.3g}"
    return Strip(caption, picture, one.words.get(f"{measure.split('.')[0]}.reasoning", ""))
