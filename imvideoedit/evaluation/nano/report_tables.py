"""The tables of a NanoEdit-Bench report."""

import math
from collections.abc import Sequence

from imvideoedit.evaluation.nano.exact import PSNRS
from imvideoedit.evaluation.nano.report_estimates import ReportRow
from imvideoedit.evaluation.nano.scoring import WEIGHTS
from imvideoedit.evaluation.reporting.table import Table


def overall_table(rows: Sequence[ReportRow]) -> Table:
    """All videos: score, difference to the first variant, and training; without empty columns."""
    header = ["", "overall (95 %)", "paired difference (95 %)", "", "seeds", "videos", "parameters", "steps"]
    lines = []
    for row in _of_all_videos(rows):
        difference = _interval(row, "difference", "difference_low", "difference_high", "+")
        counts = [_count(row.get(key, "")) for key in ("seeds", "videos", "parameters", "steps")]
        lines.append([row["variant"], _interval(row), difference, row.get("verdict", ""), *counts])
    used = [column for column, *cells in zip(range(len(header)), *lines, strict=True) if any(cells)]
    return Table("All videos", [header[n] for n in used], [[line[n] for n in used] for line in lines])


def parts_table(rows: Sequence[ReportRow]) -> Table:
    """All videos: the four parts of the score and the PSNR of each region."""
    keys = (*WEIGHTS, *PSNRS)
    lines = [[row["variant"], *(_cell(row[key]) for key in keys)] for row in _of_all_videos(rows)]
    return Table("Parts of the score, and PSNR", ["", *map(_title, keys)], lines)


def task_table(rows: Sequence[ReportRow]) -> Table:
    """A row per task, a column per variant."""
    labels = list(dict.fromkeys(row["variant"] for row in rows))
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["task"]:
            cell = f"{_cell(row['overall'])} / {_cell(row['changed_psnr'])}"
            cells.setdefault(row["task"], {})[row["variant"]] = cell
    lines = [[task.replace("_", " "), *(own.get(label, "") for label in labels)] for task, own in cells.items()]
    return Table("Each task: overall / PSNR of the changed region (dB)", ["", *labels], lines)


def length_table(rows: Sequence[ReportRow]) -> Table:
    """A row per length and variant."""
    header = ["", "frames", "overall (95 %)", *map(_title, PSNRS)]
    lines = [
        [row["variant"], str(row["frames"]), _interval(row), *(_cell(row[key]) for key in PSNRS)]
        for row in rows
        if row["frames"]
    ]
    return Table("Each length", header, lines)


def _of_all_videos(rows: Sequence[ReportRow]) -> list[ReportRow]:
    return [row for row in rows if not row["task"] and not row["frames"]]


def _title(key: str) -> str:
    return key.replace("_psnr", " (dB)")


def _interval(row: ReportRow, key: str = "overall", low: str = "low", high: str = "high", sign: str = "") -> str:
    if key not in row:
        return ""
    return f"{row[key]:{sign}.1f} ({row[low]:{sign}.1f} to {row[high]:{sign}.1f})"


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1f}"


def _count(value: int | str) -> str:
    return f"{int(value):,}" if str(value).isdecimal() else str(value)
