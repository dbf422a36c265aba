"""Edits together with the scores of all scorers, as a list and as files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imvideoedit.common.escaping import write_csv
from imvideoedit.common.json_file import write_json
from imvideoedit.evaluation.edits.manifest import EditRow
from imvideoedit.evaluation.edits.score_store import Score


@dataclass(frozen=True)
class ScoredEdit:
    """An edit and its scores.

    Attributes:
        values: ``<scorer>.<measure>`` -> value; what was not measured is missing.
        texts: ``<scorer>.<detail>`` -> text.
        problems: scorer -> why it gave no score.
    """

    row: EditRow
    values: dict[str, float] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def gather(rows: Sequence[EditRow], scores: Mapping[str, Sequence[Score]]) -> list[ScoredEdit]:
    """Every row with the scores of all scorers.

    Args:
        scores: scorer -> a score for each row.
    """
    gathered = [ScoredEdit(row) for row in rows]
    for scorer, own in scores.items():
        for edit, score in zip(gathered, own, strict=True):
            for key, value in score.items():
                if key == "problem":
                    edit.problems[scorer] = value
                elif isinstance(value, str):
                    edit.texts[f"{scorer}.{key}"] = value
                elif value is not None:
                    edit.values[f"{scorer}.{key}"] = float(value)
    return gathered


def measures_of(edits: Sequence[ScoredEdit]) -> list[str]:
    """The measures that any edit has, in order."""
    return list(dict.fromkeys(key for edit in edits for key in edit.values))


def write_scored_edits(edits: Sequence[ScoredEdit], about: dict[str, Any], out: Path) -> None:
    """Write ``scores.csv``, a row per edit, and ``result.json`` with everything."""
    measures = measures_of(edits)
    rows = [["method", "task", "id", "instruction", *measures, "problems"]]
    for edit in edits:
        names = [edit.row.method, edit.row.task, edit.row.id, edit.row.instruction]
        cells = [repr(edit.values[key]) if key in edit.values else "" for key in measures]
        rows.append([*names, *cells, "; ".join(edit.problems.values())])
    write_csv(out / "scores.csv", rows)
    records = [
        {"method": edit.row.method, "task": edit.row.task, "id": edit.row.id, "instruction": edit.row.instruction,
         "numbers": edit.values, "words": edit.texts, "problems": edit.problems}
        for edit in edits
    ]  # fmt: skip
    write_json(out / "result.json", {**about, "edits": records})
