"""Run as a process: whether a sharded method sees its weights change, where gathered ones are kept after a pass."""

import sys

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.training.averaging import MovingAverage
from imvideoedit.training.strategies import drop_gathered, shard_method
from tests.conftest import tiny_batch, tiny_transformer


def main(meeting: str) -> None:
    """Print the largest change of a velocity by an average, and what is left of it afterwards."""
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    transformer, method, batch = tiny_transformer(), PredictUpdate(), tiny_batch()
    method.install(transformer)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    shard_method(method, init_device_mesh("cpu", (1,)), "32-true", reshard_after_forward=False)
    trained = list(method.parameters())
    average = MovingAverage(trained)
    with torch.no_grad():
        for parameter in trained:
            parameter.mul_(2)

    def velocity() -> Tensor:
        with torch.no_grad():
            return method.velocity(transformer, batch)(batch.target_BCFHW, torch.tensor([0.3, 0.8]))

    seen = [velocity()]
    for _ in range(2):
        average.swap()
        drop_gathered(method)
        seen.append(velocity())
    print("changed", float((seen[1] - seen[0]).abs().max()), float((seen[2] - seen[0]).abs().max()))


if __name__ == "__main__":
    main(sys.argv[1])
