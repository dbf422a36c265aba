"""Scores against the exact answer: what changed as asked, what stayed as it was."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from imvideoedit.world.edits import Edit, sample_edit
from imvideoedit.world.tasks import TASKS

PSNR_CAP = 60.0  # dB; identical videos would score infinity and drown every mean
SCORES = ("changed_psnr", "kept_psnr", "frame_psnr")

Editor = Callable[[np.ndarray, Edit], np.ndarray]
"""Takes a source video ``[F, H, W, 3]`` uint8 and its edit; returns the edited video of the same shape."""


def held_out_edits(per_task: int, seed: int = 2026, tasks: Sequence[str] = TASKS) -> list[Edit]:
    """``per_task`` test-composition edits of each task, task by task; a prefix of a longer list of the same seed."""
    edits = []
    for task in tasks:
        rng = np.random.default_rng((seed, TASKS.index(task)))
        edits += [sample_edit(rng, "test", task) for _ in range(per_task)]
    return edits


def psnr(error_squared: np.ndarray) -> float:
    """10·log10(255² / mean), capped at ``PSNR_CAP``; NaN where the region is empty."""
    if error_squared.size == 0:
        return float("nan")
    mean = float(error_squared.mean())
    return PSNR_CAP if mean == 0 else min(PSNR_CAP, float(10 * np.log10(255.0**2 / mean)))


def score(edited: np.ndarray, exact: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """PSNR (dB) over the changed pixels, the kept pixels and the frame.

    Args:
        edited, exact: ``[F, H, W, 3]`` uint8.
        mask: ``[F, H, W]`` bool, the pixels the exact edit changes.

    Raises:
        ValueError: the shapes differ.
    """
    if edited.shape != exact.shape:
        raise ValueError(f"the edited video is {edited.shape}, the exact answer {exact.shape}")
    error = (edited.astype(np.float32) - exact.astype(np.float32)) ** 2
    return {"changed_psnr": psnr(error[mask]), "kept_psnr": psnr(error[~mask]), "frame_psnr": psnr(error)}


def evaluate(editor: Editor, edits: Iterable[Edit], frames: int, progress: Callable[[], None] | None = None) -> dict:
    """Mean scores of an editor, overall and per task: ``{**scores, "tasks": {task: scores}}``."""
    rows: dict[str, list[dict[str, float]]] = {}
    for edit in edits:
        source, exact, mask = edit.render(frames)
        rows.setdefault(edit.task, []).append(score(editor(source, edit), exact, mask))
        if progress is not None:
            progress()
    everything = [row for task_rows in rows.values() for row in task_rows]
    return {**mean_scores(everything), "tasks": {task: mean_scores(task_rows) for task, task_rows in rows.items()}}


def mean_scores(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each score over the videos that have that region, rounded to 0.01 dB."""
    means = {}
    for key in SCORES:
        known = [row[key] for row in rows if not np.isnan(row[key])]
        means[key] = round(float(np.mean(known)), 2) if known else float("nan")
    return means
