"""Optical flow, warping, occlusion, and frame interpolation.

Legend: H W pixels. Frames are float ``[3, H, W]`` in [0, 1], flows ``[2, H, W]`` in pixels, x then y.
"""

from collections.abc import Callable

import torch
from skimage.registration import optical_flow_tvl1
from torch import Tensor
from torch.nn import functional as F

Flow = Callable[[Tensor, Tensor], Tensor]
"""The content at p in the first frame is at p + flow(p) in the second."""


def tvl1(first: Tensor, second: Tensor) -> Tensor:
    """TV-L1 flow (Zach et al. 2007) of scikit-image, which needs no weights; for small motions."""
    rows, columns = optical_flow_tvl1(_grey(first), _grey(second))
    return torch.stack([torch.from_numpy(columns), torch.from_numpy(rows)]).float()


def _grey(frame: Tensor):
    return (frame * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0).numpy()


def warp(frame: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """The frame sampled at p + flow(p), bilinear, and bool ``[H, W]``: where that is inside the frame."""
    height, width = flow.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x, y = columns + flow[0], rows + flow[1]
    grid = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], dim=-1)
    read = F.grid_sample(frame[None], grid[None], mode="bilinear", padding_mode="border", align_corners=True)
    return read[0], (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def visible(forward: Tensor, backward: Tensor) -> Tensor:
    """Where the two flows cancel out (Sundaram et al. 2010), bool ``[H, W]``; elsewhere is an occlusion."""
    back, inside = warp(backward, forward)
    squared = ((forward + back) ** 2).sum(0)
    return inside & (squared < 0.01 * ((forward**2).sum(0) + (back**2).sum(0)) + 0.5)


def between(first: Tensor, second: Tensor, flow: Flow) -> Tensor:
    """The frame halfway between two (Jiang et al. 2018, Super SloMo, equations 1 and 4 at t = 1/2)."""
    forward, backward = flow(first, second), flow(second, first)
    to_first, to_second = (backward - forward) / 4, (forward - backward) / 4
    return (warp(first, to_first)[0] + warp(second, to_second)[0]) / 2
