"""Edits with everything that was said of them."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imvideoedit.common.files import replacing
from imvideoedit.evaluation.edits.manifest import EditRow
from imvideoedit.evaluation.edits.scores import Score
from imvideoedit.evaluation.reporting.jsonable import jsonable


@dataclass(frozen=True)
class Scored:
    """An edit and its scores.

    Attributes:
        numbers: ``<scorer>.<measure>`` -> value; what was not measured is missing.
        words: ``<scorer>.<detail>`` -> text.
        problems: scorer -> why the edit got no score.
    """

    row: EditRow
    numbers: dict[str, float] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def gather(rows: Sequence[EditRow], scores: Mapping[str, Sequence[Score]]) -> list[Scored]:
    """Every row with the scores of all scorers.

    Args:
        scores: scorer -> a score for each row.
    """
    gathered = [Scored(row) for row in rows]
    for scorer, own in scores.items():
        for scored, score in zip(gathered, own, strict=True):
            for key, value in score.items():
                if key == "problem":
                    scored.problems[scorer] = value
                elif isinstance(value, str):
                    scored.words[f"{scorer}.{key}"] = value
                elif value is not None:
                    scored.numbers[f"{scorer}.{key}"] = float(value)
    return gathered


def measures_of(scored: Sequence[Scored]) -> list[str]:
    """The numbers that any edit has, in order."""
    return list(dict.fromkeys(key for one in scored for key in one.numbers))


def write_scored(scored: Sequence[Scored], about: dict[str, Any], out: Path) -> None:
    """Write ``scores.csv``, a row an edit, and ``result.json`` with all of it."""
    measures = measures_of(scored)
    with replacing(out / "scores.csv") as path, path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", "task", "id", "instruction", *measures, "problems"])
        for one in scored:
            texts = [one.row.method, one.row.task, one.row.id, one.row.instruction]
            numbers = [repr(one.numbers[key]) if key in one.numbers else "" for key in measures]
            writer.writerow([*texts, *numbers, "; ".join(one.problems.values())])
    edits = [
        {"method": one.row.method, "task": one.row.task, "id": one.row.id, "instruction": one.row.instruction,
         "numbers": one.numbers, "words": one.words, "problems": one.problems}
        for one in scored
    ]  # fmt: skip
    with replacing(out / "result.json") as path:
        path.write_text(
            json.dumps(jsonable({**about, "edits": edits}), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
