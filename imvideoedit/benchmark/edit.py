"""An edit against plain text-to-video of the same backbone, length and steps: one block at the size of 81 frames.

``best`` is exact: the source once, and the adapter in every pass. ``standard`` and ``draft`` take the passes that their
presets take; the block's cost is what a pass costs. ``naive`` runs both streams at every step, stacked.
"""

from typing import Any

import torch

from imvideoedit.benchmark.block import CLIP, Block, Grid, edit_step, plain_step, prepare_step
from imvideoedit.common.machine import fastest
from imvideoedit.editing.sampling_config import QUALITIES, SamplingConfig
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.methods.parallel_2d import Parallel2D
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.methods.two_stream import TwoStreamMethod

METHODS: dict[str, TwoStreamMethod] = {"predict_update": PredictUpdate(), "aligned_update": AlignedUpdate()}
BUNDLED = "aligned_update"  # what an edit is made with where nobody says otherwise


def measure(
    device: torch.device, dtype: torch.dtype, grid: Grid = CLIP, repeats: int = 1, config: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Seconds of a pass through the block, and what whole edits cost in text-to-video's of Wan's defaults."""
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
    whole = passes(own) * plain
    figures: dict[str, Any] = {"seconds": seconds, "naive_vs_t2v": seconds["naive"] / plain}
    for name in QUALITIES:
        sampling = own.preset(name)
        for kind in METHODS:
            figures[f"{name}_vs_t2v_{kind}"] = (passes(sampling) * seconds[kind] + seconds[f"{kind}_source"]) / whole
        figures[f"{name}_vs_t2v"] = figures[f"{name}_vs_t2v_{BUNDLED}"]
    return figures


def passes(config: SamplingConfig) -> float:
    """Of the transformer for one video: the steps, and those of them that have guidance once more."""
    return config.steps + (round(config.steps * config.guided_share) if config.guidance != 1 else 0)
