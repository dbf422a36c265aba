"""A long video in windows against one that fits into a single window: quality at the seams, over the whole, memory."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch

from imvideoedit.common.machine import peak_bytes
from imvideoedit.editing.denoiser import windows_of
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.evaluation.nano.exact import held_out_edits, psnr
from imvideoedit.world.edits import Edit

SHORT, LONG = 49, 193  # frames


def measure(device: torch.device, dtype: torch.dtype, repeats: int = 1, lengths=(SHORT, LONG)) -> dict[str, Any]:
    """Edit held-out nano videos of two lengths with the bundled adapter.

    Args:
        dtype: not used; the adapter's own.
        repeats: videos of each of the ten tasks.
        lengths: frames that fit into a window, and frames that do not.

    Returns:
        ``seam_loss``: PSNR inside windows less that where windows overlap; ``length_loss``: PSNR of the short videos
        less that of the long ones; both in dB, means over the videos. ``memory_ratio``: peak memory of a process that
        edits a long video over that of one that edits a short one.
    """
    pipeline = EditPipeline.from_pretrained(device=str(device))
    edits = held_out_edits(repeats)
    errors = [[_errors(pipeline, edit, length) for edit in edits] for length in lengths]
    decibels = [np.mean([psnr(error) for error in group]) for group in errors]
    seam = _in_several_windows(pipeline, lengths[1])
    losses = [psnr(error[~seam]) - psnr(error[seam]) for error in errors[1]]
    peaks = [_in_a_process(str(device), length) for length in lengths]
    return {
        "seam_loss": float(np.mean(losses)),
        "length_loss": float(decibels[0] - decibels[1]),
        "memory_ratio": peaks[1] / peaks[0],
        "rows": {
            "whole video": {"psnr": dict(zip(map(str, lengths), map(float, decibels), strict=True))},
            "peak": {"bytes": dict(zip(map(str, lengths), map(float, peaks), strict=True))},
        },
    }


def _errors(pipeline: EditPipeline, edit: Edit, frames: int) -> np.ndarray:
    """Mean squared error of each frame, ``[F]``."""
    source, exact, _ = edit.render(frames)
    return ((_edited(pipeline, edit, source).astype(np.float32) - exact) ** 2).mean((1, 2, 3))


def _edited(pipeline: EditPipeline, edit: Edit, source: np.ndarray) -> np.ndarray:
    return pipeline(source, edit.instruction, source_prompt=edit.source_prompt).frames


def _in_several_windows(pipeline: EditPipeline, frames: int) -> np.ndarray:
    """Which frames belong to a latent frame that more than one window has a say in, bool ``[F]``."""
    group = pipeline.backbone.vae_temporal
    latent_frames = -(-(frames - 1) // group) + 1
    count = np.zeros(latent_frames, dtype=int)
    for window in windows_of(latent_frames, pipeline.config, group):
        count[window] += 1
    return count[-(-np.arange(frames) // group)] > 1


def _in_a_process(device: str, frames: int) -> int:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, device, frames).result()


def _peak(device: str, frames: int) -> int:
    """Bytes at most, of the GPU where there is one, else of this process."""
    edit = held_out_edits(1)[0]
    _edited(EditPipeline.from_pretrained(device=device), edit, edit.render(frames)[0])
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated()
    return peak_bytes()
