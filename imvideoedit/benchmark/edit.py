"""Cost of an edit relative to text-to-video of the same backbone, length and steps: one block at the size of 81 frames.

``best`` computes the source once, and the adapter in every pass. ``standard`` and ``draft`` run the passes of their
presets; a pass costs what the block costs. ``naive`` runs both streams, stacked, at every step.
"""

from typing import Any

import torch

from imvideoedit.benchmark.block import VIDEO, Block, Grid, edit_step, plain_step, prepare_step
from imvideoedit.common.machine import fastest
from imvideoedit.editing.sampling_config import QUALITIES, SamplingConfig
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.methods.parallel_2d import Parallel2D
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.methods.two_stream import TwoStreamMethod

METHODS: dict[str, TwoStreamMethod] = {"predict_update": PredictUpdate(), "aligned_update": AlignedUpdate()}
BUNDLED = "aligned_update"  # method of the bundled adapter


def measure_edit(
    device: torch.device, dtype: torch.dtype, grid: Grid = VIDEO, repeats: int = 1, config: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Seconds of a pass through the block, and costs of edits relative to text-to-video with Wan's defaults."""
    with torch.no_grad():
        block = Block(grid, config, device, dtype)
        plain = fastest(plain_step(block, False), repeats)
        seconds = {"plain": plain}
        for name, method in METHODS.items():
            method.install(block.transformer, dtype)
            seconds[name] = fastest(edit_step(block, method, False), repeats)
            seconds[f"{name}_source"] = plain + fastest(prepare_step(block, method), repeats)
            method.uninstall()
        naive = Parallel2D(source_stream="joint")
        naive.install(block.transformer, dtype)
        seconds["naive"] = fastest(edit_step(block, naive, False), repeats)
    own = SamplingConfig()
    text_to_video = passes(own) * plain
    results: dict[str, Any] = {"seconds": seconds, "naive_vs_t2v": seconds["naive"] / plain}
    for name in QUALITIES:
        sampling = own.preset(name)
        for kind in METHODS:
            results[f"{name}_vs_t2v_{kind}"] = (
                passes(sampling) * seconds[kind] + seconds[f"{kind}_source"]
            ) / text_to_video
        results[f"{name}_vs_t2v"] = results[f"{name}_vs_t2v_{BUNDLED}"]
    return results


def passes(sampling: SamplingConfig) -> float:
    """Transformer passes for one video: one per step, and a second one per step with guidance."""
    return sampling.steps + (round(sampling.steps * sampling.guided_share) if sampling.guidance != 1 else 0)
