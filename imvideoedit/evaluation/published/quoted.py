"""The papers' tables, and whether their totals are the sums of their parts."""

import csv
import importlib.resources
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]
PARTS = ("adherence", "temporal", "fidelity", "artifacts")
_IMVIDEOEDIT = "ImVideoEdit, arXiv 2604.07958"


@dataclass(frozen=True)
class Quoted:
    """One published table.

    Attributes:
        key: its file's name.
        title: what it shows, where it was published and what judged.
        scorer: whose scores of ours are of the same kind; comparable only where judge and videos are the same too.
        rows: texts in ``task`` and ``method``, numbers elsewhere.
    """

    key: str
    title: str
    scorer: str
    rows: list[Record]


_TABLES = {
    "judge": (f"Judge's dimensions ({_IMVIDEOEDIT}, table 5; Gemini 3.1 Pro)", "paper"),
    "judge_tasks": (f"Judge, task by task ({_IMVIDEOEDIT}, tables 8 and 9; Gemini 3.1 Pro)", "paper"),
    "ablation": (f"Judge, ablation ({_IMVIDEOEDIT}, table 4; Gemini 3.1 Pro)", "paper"),
    "vbench": (f"VBench's six dimensions ({_IMVIDEOEDIT}, table 3; the VBench package)", "vbench"),
    "six": ("Six dimensions of 0 to 10 and users' 1 to 5 (MiVE, table 2; Gemini 3 Flash)", "six"),
    "three": ("VIE-Bench, 1 to 10 (SAMA, arXiv 2603.19228, table 2; GPT-4o)", "three"),
    "editversebench": (
        "EditVerseBench, 125 videos (FFP-300K, arXiv 2601.01720, table 1; Qwen2.5-VL-72B). Its DINO, its video "
        "alignment (ViCLIP) and its judge are others than ours",
        "open",
    ),
}


def quoted(scorers: Sequence[str] = ()) -> list[Quoted]:
    """All published tables, or those of the kinds named."""
    return [
        Quoted(key, title, scorer, _read(key))
        for key, (title, scorer) in _TABLES.items()
        if not scorers or scorer in scorers
    ]


def disagreeing(rows: Sequence[Record], parts: Sequence[str] = PARTS, decimals: int = 1) -> list[Record]:
    """Rows whose ``total`` is further from the sum of their parts than rounding explains, with ``sum`` added.

    Each number is off by at most half of its last decimal, so the sum of n parts by n + 1 halves from its total.

    Args:
        decimals: that parts and total are printed with.
    """
    margin = (len(parts) + 1) * 0.5 * 10**-decimals + 1e-9
    found = []
    for row in rows:
        total = math.fsum(row[part] for part in parts)
        if abs(total - row["total"]) > margin:
            found.append({**row, "sum": round(total, decimals)})
    return found


def apart_from_tasks(rows: Sequence[Record], tasks: Sequence[Record], keys: Sequence[str]) -> list[Record]:
    """Cells of a table of means that are not the means over its table of tasks, as far as rounding explains.

    Args:
        rows: a row a method, printed with two decimals.
        tasks: a row a method and task, printed with one.

    Returns:
        ``method``, ``measure``, ``printed`` and ``mean`` of each such cell.
    """
    found = []
    for row in rows:
        own = [task for task in tasks if task["method"] == row["method"]]
        for key in keys:
            mean = math.fsum(task[key] for task in own) / len(own)
            if abs(mean - row[key]) > 0.05 + 0.005 + 1e-9:
                found.append({"method": row["method"], "measure": key, "printed": row[key], "mean": round(mean, 2)})
    return found


def _read(key: str) -> list[Record]:
    path = importlib.resources.files("imvideoedit.evaluation.published") / f"{key}.csv"
    with path.open(encoding="utf-8") as file:
        return [
            {name: cell if name in ("task", "method") else float(cell) for name, cell in row.items()}
            for row in csv.DictReader(file)
        ]
