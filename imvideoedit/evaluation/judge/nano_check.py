"""Validates a judge on nano edits, whose exact answers are known: it must rank exact > trained > copy > shuffled.

Its totals are also compared with the exact scores, edit by edit.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from imvideoedit.common.json_file import write_json
from imvideoedit.common.terminal import say
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.evaluation.edits.manifest import EditRow, write_manifest
from imvideoedit.evaluation.edits.score_store import Score, ScoreStore
from imvideoedit.evaluation.judge.agreement import agreement, in_order
from imvideoedit.evaluation.judge.scorer import JudgeScorer
from imvideoedit.evaluation.nano.editors import adapter_editor
from imvideoedit.evaluation.nano.exact import held_out_edits
from imvideoedit.evaluation.nano.measures import measure
from imvideoedit.evaluation.nano.scoring import overall, parts
from imvideoedit.video.reader import write_video
from imvideoedit.world.edits import Edit

METHODS = ("exact", "trained", "copy", "shuffled")
SIDE = 128  # pixels of the videos that a judge sees
FPS = 8


def run_judge_check(
    out: Path, judge: JudgeScorer, adapter: str, device: str | None, per_task: int, frames: int
) -> Path:
    """Make the edits, let the judge score them, and write ``judge_check.json``.

    Args:
        judge: the judge to validate.
        adapter: makes the edits called ``trained``; ``bundled`` for the bundled one.
        per_task: held-out videos of each of the ten tasks.
        frames: of each video.

    Raises:
        UserError: the adapter cannot be loaded, or the judge cannot be reached.
    """
    rows, exact = make_edits(
        out / "edits", EditPipeline.from_pretrained(adapter=adapter, device=device), per_task, frames
    )
    scores = ScoreStore(out / "scores").collect(rows, judge)
    found = verdict(rows, scores, exact, judge.protocol.most)
    result = {"judge": judge.model_name, "protocol": judge.protocol.key, **found}
    write_json(out / "judge_check.json", result)
    print_verdict(result)
    return out / "judge_check.json"


def make_edits(
    folder: Path, pipeline: EditPipeline, per_task: int, frames: int
) -> tuple[list[EditRow], dict[str, float]]:
    """Write the videos of all four methods with a manifest; returns the rows and the exact score of each.

    ``shuffled`` is the exact answer to another edit.
    """
    edits = held_out_edits(per_task)
    trained = adapter_editor(pipeline)
    rows: list[EditRow] = []
    exact_scores: dict[str, float] = {}
    for number, edit in enumerate(edits):
        source, exact, mask = edit.render(frames)
        wrong = edits[(number + len(edits) // 2) % len(edits)].render(frames)[1]
        videos = {"exact": exact, "trained": trained(source, edit), "copy": source, "shuffled": wrong}
        row = _row(folder, edit, number, source)
        for method in METHODS:
            own = replace(row, method=method, edited=_write(folder / method / f"{row.id}.mp4", videos[method]))
            exact_scores[own.name] = overall(parts(measure(videos[method], exact, source, mask, edit.target)))
            rows.append(own)
    write_manifest(rows, folder / "manifest.jsonl")
    return rows, exact_scores


def verdict(rows: Sequence[EditRow], scores: Sequence[Score], exact: dict[str, float], most: float) -> dict[str, Any]:
    """Each method's mean score by the judge and exactly, whether the judge's means are in order, and the agreement.

    Args:
        exact: row -> exact score, 0 to 100.
        most: the judge's highest total, which is scaled to 100.
    """
    judged = {
        row.name: 100 * score["total"] / most for row, score in zip(rows, scores, strict=True) if "total" in score
    }
    names = {method: [row.name for row in rows if row.method == method and row.name in judged] for method in METHODS}
    means = {
        method: {
            "judge": float(np.mean([judged[name] for name in own])) if own else float("nan"),
            "exact": float(np.mean([exact[name] for name in own])) if own else float("nan"),
            "edits": len(own),
        }
        for method, own in names.items()
    }
    known = [name for own in names.values() for name in own]
    return {
        "in_order": in_order([means[method]["judge"] for method in METHODS]),
        "means": means,
        "agreement": agreement([judged[name] for name in known], [exact[name] for name in known]),
        "unscored": [score["problem"] for score in scores if "problem" in score],
    }


def print_verdict(result: dict[str, Any]) -> None:
    """Print the verdict."""
    table = Table("", "judge", "exact", "edits", title=f"{result['judge']}, protocol {result['protocol']}, of 100")
    for method, means in result["means"].items():
        table.add_row(method, f"{means['judge']:.1f}", f"{means['exact']:.1f}", str(means["edits"]))
    console = Console()
    console.print(table)
    found = result["agreement"]
    order = "in order" if result["in_order"] else "NOT in order: this judge is not valid"
    console.print(f"{' > '.join(METHODS)}: {order}")
    console.print(
        f"agreement with the exact scores over {found['pairs']} edits: Pearson {found['pearson']:.2f}, "
        f"Spearman {found['spearman']:.2f}, mean absolute error {found['mae']:.1f}"
    )
    if result["unscored"]:
        say(f"{len(result['unscored'])} edits got no score; the first: {result['unscored'][0]}")


def _row(folder: Path, edit: Edit, number: int, source: np.ndarray) -> EditRow:
    name = f"{edit.task}_{number:03d}"
    path = _write(folder / "source" / f"{name}.mp4", source)
    texts = edit.source_prompt, edit.edited_prompt
    return EditRow(name, path, edit.instruction, task=edit.task, source_prompt=texts[0], prompt=texts[1])


def _write(path: Path, video_FHWC: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    times = max(SIDE // video_FHWC.shape[1], 1)
    write_video(path, video_FHWC.repeat(times, axis=1).repeat(times, axis=2), fps=FPS)
    return path
