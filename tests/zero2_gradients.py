"""Run as a process: how far one step of ZeRO-2 moves a weight by 16 gradients, of which 15 are small."""

import importlib
import os
import sys

import deepspeed
import torch
from torch import nn

from imvideoedit.training.strategies import Zero2, zero2

COUNT, SMALL = 16, 2.0**-9


def moved(offload: bool, meeting: str) -> float:
    """By the float32 copy of the weight, at a learning rate of 1; ``meeting`` is a file that is not there yet."""
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    importlib.import_module("deepspeed.comm.torch").build_shm_op = lambda: None
    strategy = zero2(offload)
    assert isinstance(strategy, Zero2)
    config = {
        **strategy.config,
        "bf16": {"enabled": True},
        "gradient_accumulation_steps": COUNT,
        "zero_allow_untested_optimizer": True,
    }
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False, init_method=f"file://{meeting}", rank=0, world_size=1)
    layer = nn.Linear(8, 1, bias=False).bfloat16()
    nn.init.zeros_(layer.weight)
    engine, optimizer, _, _ = deepspeed.initialize(
        model=layer,
        model_parameters=layer.parameters(),
        optimizer=torch.optim.SGD(layer.parameters(), 1.0),
        config=config,
    )
    for number in range(COUNT):
        x = torch.full((1, 8), SMALL if number else 1.0, dtype=torch.bfloat16)
        engine.backward(engine(x).sum())
        engine.step()
    return -float(optimizer.single_partition_of_fp32_groups[0][0])


if __name__ == "__main__":
    print("moved", moved(sys.argv[1] == "offload", sys.argv[2]))
