"""Low-rank linear maps: a frozen projection plus a trained delta, or the delta alone."""

import math

import torch
from torch import Tensor, nn


class LowRank(nn.Module):
    """y = B(A x) + b, exactly zero at the start: A is random, B and the optional bias b are zero.

    Args:
        inputs, outputs: widths.
        rank: inner width, at least 1.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, bias: bool = False, device=None, dtype=None) -> None:
        super().__init__()
        self.down = nn.Linear(inputs, rank, bias=False, device=device, dtype=dtype)
        self.up = nn.Linear(rank, outputs, bias=bias, device=device, dtype=dtype)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)
        if bias:
            nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x))


class Frozen(nn.Module):
    """A module of the backbone, used but not owned: it has no parameters here and is never saved."""

    module: nn.Module

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        # nn.Module would register the attribute as a child; its weights would then count, move and be saved twice.
        self.__dict__["module"] = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


class LowRankDelta(nn.Module):
    """y = W x + B(A x): the frozen W stays the backbone's own, only A and B are trained; equals W x at the start."""

    def __init__(self, linear: nn.Linear, rank: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.frozen = Frozen(linear)
        self.delta = LowRank(linear.in_features, linear.out_features, rank, device=linear.weight.device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(x) + self.delta(x)
