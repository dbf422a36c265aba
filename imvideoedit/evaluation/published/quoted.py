"""Tables from papers, as they were printed."""

import csv
import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]
_IMVIDEOEDIT = "ImVideoEdit, arXiv 2604.07958"


@dataclass(frozen=True)
class Quoted:
    """One published table.

    Attributes:
        key: name of its file.
        title: content, publication and judge.
        scorer: kind of our scorer with the same measures; comparable only with the same judge and videos.
        rows: text in ``task`` and ``method``, floats elsewhere.
    """

    key: str
    title: str
    scorer: str
    rows: list[Record]


_TABLES = {
    "judge": (f"Judge's dimensions ({_IMVIDEOEDIT}, table 5; Gemini 3.1 Pro)", "paper"),
    "judge_tasks": (f"Judge, each task ({_IMVIDEOEDIT}, tables 8 and 9; Gemini 3.1 Pro)", "paper"),
    "ablation": (f"Judge, ablation ({_IMVIDEOEDIT}, table 4; Gemini 3.1 Pro)", "paper"),
    "vbench": (f"VBench's six dimensions ({_IMVIDEOEDIT}, table 3; the VBench package)", "vbench"),
    "six": ("Six dimensions of 0 to 10 and users' 1 to 5 (MiVE, table 2; Gemini 3 Flash)", "six"),
    "six_ablation": (
        "Six dimensions, ablation on the complex videos (MiVE, ablation tables of section 6.3; Gemini 3 Flash). The "
        "last layer alone is above the whole on content and aesthetics",
        "six",
    ),
    "three": ("VIE-Bench, 1 to 10 (SAMA, arXiv 2603.19228, table 2; GPT-4o)", "three"),
    "editversebench": (
        "EditVerseBench, 125 videos (FFP-300K, arXiv 2601.01720, table 1; Qwen2.5-VL-72B). Its DINO, its video "
        "alignment (ViCLIP) and its judge differ from ours",
        "open",
    ),
    "first_frame": (
        "I2VEdit's test set by the edited first frame (LoRA-Edit, arXiv 2506.10082, table 1). It does not say which "
        "CLIP it took",
        "first_frame",
    ),
    "first_frame_users": (
        "Mean ranks by 35 people on 20 clips, 1 is best (LoRA-Edit, arXiv 2506.10082, table 2)",
        "first_frame",
    ),
}


def quoted(scorers: Sequence[str] = ()) -> list[Quoted]:
    """All published tables, or those of the given kinds."""
    return [
        Quoted(key, title, scorer, _read(key))
        for key, (title, scorer) in _TABLES.items()
        if not scorers or scorer in scorers
    ]


def _read(key: str) -> list[Record]:
    path = importlib.resources.files("imvideoedit.evaluation.published") / f"{key}.csv"
    with path.open(encoding="utf-8") as file:
        return [
            {name: cell if name in ("task", "method") else float(cell) for name, cell in row.items()}
            for row in csv.DictReader(file)
        ]
