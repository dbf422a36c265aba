"""The moving average of the trained weights: of full tensors, of FSDP2's shards, or of ZeRO-2's float32 partitions."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


class MovingAverage:
    """Average of parameters; of sharded ones each process holds its own shards.

    Args:
        parameters: to average, in a fixed order.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.values = [p.detach().clone() for p in self.parameters]

    def to(self, device: torch.device) -> None:
        """Move the average."""
        self.values = [value.to(device) for value in self.values]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """average = decay * average + (1 - decay) * weights."""
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and average."""
        for parameter, value in zip(self.parameters, self.values, strict=True):
            previous = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(previous)

    def state(self) -> list[Tensor]:
        """Full tensors to save; a collective operation."""
        return [full_tensor(value) for value in self.values]

    @torch.no_grad()
    def load(self, state: Sequence[Tensor]) -> None:
        """Restore what :meth:`state` returned."""
        for place, (value, saved) in enumerate(zip(self.values, state, strict=True)):
            if isinstance(value, DTensor):
                self.values[place] = distribute_tensor(saved.to(value.device), value.device_mesh, value.placements)
            else:
                value.copy_(saved)


class ZeroAverage:
    """Average of the float32 weights that DeepSpeed's ZeRO-2 partitions; each process averages its own partition.

    Args:
        optimizer: DeepSpeed's.
    """

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.values = [part.detach().clone() for part in self._weights()]

    def _weights(self) -> list[Tensor]:
        return list(self.optimizer.single_partition_of_fp32_groups)

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """As :meth:`MovingAverage.update`."""
        torch._foreach_lerp_(self.values, [part.detach() for part in self._weights()], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and average, also in the parameters of the forward pass; a collective operation."""
        for part, value, flat in zip(self._weights(), self.values, self.optimizer.bit16_groups_flat, strict=True):
            previous = part.detach().clone()
            part.data.copy_(value)
            value.copy_(previous)
            own = part.detach().to(flat.device, flat.dtype)
            if torch.distributed.get_world_size() == 1:
                flat.data.copy_(own)
            else:
                torch.distributed.all_gather_into_tensor(flat.data, own)

    def state(self) -> list[Tensor]:
        """This process's partition."""
        return [value.cpu() for value in self.values]

    @torch.no_grad()
    def load(self, state: Sequence[Tensor]) -> None:
        """Restore what :meth:`state` returned to the same process."""
        for value, saved in zip(self.values, state, strict=True):
            value.copy_(saved)


def full_tensor(tensor: Tensor) -> Tensor:
    """A sharded tensor gathered (a collective operation); any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
