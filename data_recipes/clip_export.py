"""The last stage of the clip recipe: a folder that training reads, with clips, masks and edited first frames."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from data_recipes.clip_rows import MEDIA, read_clip
from data_recipes.plan import balance
from data_recipes.rows import TEXTS, Row, held
from data_recipes.stages import shards_of
from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing_folder

METADATA = "metadata.jsonl"


@dataclass(frozen=True)
class ClipExport:
    """Which accepted pairs are exported.

    Raises:
        UserError: a number is below 1.
    """

    pairs: int  # balanced over tasks; all if there are fewer
    most_of_a_kind: int | None = None  # of each kind's pairs those with the best scores; all if None

    def __post_init__(self) -> None:
        if self.pairs < 1 or (self.most_of_a_kind is not None and self.most_of_a_kind < 1):
            raise UserError(f"pairs is {self.pairs} and most_of_a_kind {self.most_of_a_kind}; ask for at least 1")

    def of_kinds(self, rows: list[Row]) -> list[Row]:
        """At most so many rows of a kind, in their order."""
        if self.most_of_a_kind is None:
            return rows
        best = sorted(range(len(rows)), key=lambda place: -sum(held(rows[place], "scores").values()))
        counts, kept = Counter[str](), []
        for place in best:
            counts[rows[place]["kind"]] += 1
            if counts[rows[place]["kind"]] <= self.most_of_a_kind:
                kept.append(place)
        return [rows[place] for place in sorted(kept)]


def export_clips(out: Path, options: ClipExport, facts: dict[str, Any]) -> int:
    """Write ``export/`` in the recipe's folder; returns the number of pairs.

    ``metadata.jsonl`` is of our own form (see ``imvideoedit/data/README.md``), with ``first_frame`` without loss, and
    ``mask`` where there is one. Clips are hard links where the file system has them.

    Raises:
        UserError: no pair is accepted, or a clip is missing.
    """
    accepted = [row for row in shards_of(out, "verdicts").rows() if row["accepted"]]
    if not accepted:
        raise UserError(
            f"no pair of {out} was accepted; see the reasons in {out / 'verdicts'}, or lower verdicts.accept"
        )
    accepted = options.of_kinds(accepted)
    chosen = [accepted[place] for place in balance([row["task"] for row in accepted], options.pairs)]
    with replacing_folder(out / "export") as folder:
        lines = [json.dumps(line) for line in _lines(out, folder, chosen)]
        (folder / METADATA).write_text("".join(f"{line}\n" for line in lines))
        (folder / "made_by.json").write_text(json.dumps(facts, indent=1))
    return len(chosen)


def _lines(out: Path, folder: Path, rows: list[Row]) -> Iterator[dict[str, Any]]:
    for row in rows:
        line: dict[str, Any] = {name: row[name] for name in ("id", "task", *TEXTS)}
        for name in MEDIA:
            if row[name]:
                line[name] = f"{name}/{row['id']}{Path(row[name]).suffix}"
                _linked(out / row[name], folder / line[name])
        line["first_frame"] = f"first_frame/{row['id']}.png"
        (folder / line["first_frame"]).parent.mkdir(exist_ok=True)
        Image.fromarray(read_clip(out, row["target"], 1)[0]).save(folder / line["first_frame"])
        scores = held(row, "scores")
        yield line | ({"scores": scores} if scores else {})


def _linked(origin: Path, copy: Path) -> None:
    copy.parent.mkdir(exist_ok=True)
    try:
        os.link(origin, copy)
    except FileNotFoundError as error:
        raise UserError(f"{origin} is missing; run the stage that makes it again") from error
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(origin, copy)
