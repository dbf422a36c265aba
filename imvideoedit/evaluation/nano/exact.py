"""Held-out edits, and the PSNR of an edited video against the exact answer."""

from collections.abc import Callable, Sequence

import numpy as np

from imvideoedit.world.edits import Edit, sample_edit
from imvideoedit.world.tasks import TASKS

PSNR_CAP = 60.0  # dB; the PSNR of identical videos is infinite, and so would be every mean with one
HELD_OUT = 2026  # the seed of NanoEdit-Bench
PSNRS = ("changed_psnr", "kept_psnr", "frame_psnr")

Editor = Callable[[np.ndarray, Edit], np.ndarray]
"""Takes a source video ``[F, H, W, 3]`` uint8 and its edit; returns the edited video of the same shape."""


def held_out_edits(per_task: int, seed: int = HELD_OUT, tasks: Sequence[str] = TASKS) -> list[Edit]:
    """``per_task`` test-composition edits of each task, task by task; a prefix of a longer list of the same seed."""
    edits = []
    for task in tasks:
        rng = np.random.default_rng((seed, TASKS.index(task)))
        edits += [sample_edit(rng, "test", task) for _ in range(per_task)]
    return edits


def psnr(error_squared: np.ndarray) -> float:
    """10·log10(255² / mean) in dB, at most ``PSNR_CAP``; NaN for an empty region."""
    if error_squared.size == 0:
        return float("nan")
    mean = float(error_squared.mean())
    return PSNR_CAP if mean == 0 else min(PSNR_CAP, float(10 * np.log10(255.0**2 / mean)))


def region_psnr(edited: np.ndarray, exact: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """PSNR (dB) of the changed pixels, of the kept pixels and of the frame.

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
