"""Strips of the best and the worst edits under their sources."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imvideoedit.editing.prompts import shrunk
from imvideoedit.evaluation.edits.score_store import Unscored
from imvideoedit.evaluation.edits.scored_edits import ScoredEdit
from imvideoedit.evaluation.edits.videos import frames_of
from imvideoedit.evaluation.page.estimates import methods_of
from imvideoedit.evaluation.reporting.pages import data_uri
from imvideoedit.video.strips import write_strip

COUNT = 3  # of the best and of the worst
COLUMNS = 6
SIDE = 160  # pixels of a frame's longer side


@dataclass(frozen=True)
class Strip:
    """An image of one edit.

    Attributes:
        caption: instruction, id and value of the edit.
        image: PNG as a data URI.
        reasoning: of a judge; may be empty.
    """

    caption: str
    image: str
    reasoning: str


def extremes(edits: Sequence[ScoredEdit], measure: str, lower_is_better: bool) -> dict[str, list[Strip]]:
    """``<method>, best`` and ``<method>, worst`` by one measure; no edit is in both."""
    strips: dict[str, list[Strip]] = {}
    for method in methods_of(edits):
        own = [edit for edit in edits if edit.row.method == method and measure in edit.values]
        own.sort(key=lambda edit: edit.values[measure], reverse=not lower_is_better)
        count = min(COUNT, (len(own) + 1) // 2)
        for name, chosen in (("best", own[:count]), ("worst", own[count:][::-1][:count])):
            drawn = [strip for edit in chosen if (strip := _strip(edit, measure)) is not None]
            if drawn:
                strips[f"{method}, {name}"] = drawn
    return strips


def _strip(edit: ScoredEdit, measure: str) -> Strip | None:
    assert edit.row.edited is not None
    try:
        rows = {
            label: np.stack(shrunk(frames_of(path, COLUMNS), SIDE))
            for label, path in (("source", edit.row.source), ("edited", edit.row.edited))
        }
    except Unscored:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "strip.png"
        write_strip(path, rows, COLUMNS, scale=max(SIDE // max(rows["edited"].shape[1:3]), 1))
        image = data_uri(path.read_bytes())
    caption = f"{edit.row.instruction} ({edit.row.id}): {edit.values[measure]:.3g}"
    return Strip(caption, image, edit.texts.get(f"{measure.split('.')[0]}.reasoning", ""))
