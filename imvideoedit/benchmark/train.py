"""The training step: one block at Wan 1.3B's width, against its floor and against the nearest peer's formulation.

The floor is the FLOPs of the cached step at this machine's rate of matrix multiplications. The peer's block is in
:mod:`imvideoedit.benchmark.peer`; ``stacked`` is a cheaper variant: both streams on the batch, a timestep each.
"""

from typing import Any

import torch

from imvideoedit.benchmark.block import IMAGE, Block, Grid, edit_step, plain_step
from imvideoedit.benchmark.costs import Cost, cost
from imvideoedit.benchmark.peer import peer_step
from imvideoedit.common.machine import matmul_rate
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.methods.parallel_2d import Parallel2D
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.methods.two_stream import TwoStreamMethod

METHODS: dict[str, TwoStreamMethod] = {
    "joint": PredictUpdate(source_stream="joint"),
    "cached": PredictUpdate(),
    "cached_lora": PredictUpdate(adapter="lora"),
    "aligned_cached": AlignedUpdate(),
    "stacked": Parallel2D(source_stream="joint"),
}
KINDS = {"forward": False, "train": True}


def measure_training(
    device: torch.device, dtype: torch.dtype, grid: Grid = IMAGE, repeats: int = 3, config: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Costs of forward, and of forward with backward, and their ratios.

    Args:
        config: of a transformer with one layer; Wan 1.3B's if None.
    """
    rate = matmul_rate(device, dtype)
    block = Block(grid, config, device, dtype)
    passes = {"plain": {key: cost(plain_step(block, back), repeats) for key, back in KINDS.items()}}
    for name, method in METHODS.items():
        method.install(block.transformer, dtype)
        passes[name] = {key: cost(edit_step(block, method, back), repeats) for key, back in KINDS.items()}
        method.uninstall()
    wide = grid[0], grid[1], 2 * grid[2]
    passes["naive"] = {
        key: cost(peer_step(Block(wide, config, device, dtype), back), repeats) for key, back in KINDS.items()
    }
    train = {name: costs["train"] for name, costs in passes.items()}
    floor = train["cached"].flops / rate
    return {
        "gflops": rate / 1e9,
        "cached_vs_naive": train["cached"].seconds / train["naive"].seconds,
        "joint_vs_naive": train["joint"].seconds / train["naive"].seconds,
        "cached_vs_stacked": train["cached"].seconds / train["stacked"].seconds,
        "cached_vs_floor": train["cached"].seconds / floor,
        "rows": {name: {key: _row(c, rate) for key, c in costs.items()} for name, costs in passes.items()},
    }


def _row(cost: Cost, rate: float) -> dict[str, float]:
    floor = cost.flops / rate
    return {
        "seconds": cost.seconds,
        "floor": floor,
        "vs_floor": cost.seconds / floor,
        "stored_mib": cost.stored / 2**20,
    }
