"""How far apart in time a video's frames should seem: AST-RoPE's two coefficients from the source's latents.

Shapes: B batch, C latent channels, F latent frames, H W latent pixels, D width.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

POOLED = (8, 8, 8)  # at most, in time, height and width: 512 tokens
LOWEST, HIGHEST = 0.25, 4.0  # of alpha_T


class PositionScales(nn.Module):
    """(alpha_S, alpha_T) of a video; (0, 1) at the start, which leaves positions as they are.

    A convolution over two neighbouring frames and a 2x2 patch sees motion; a small transformer with a token of its own
    sums up at most 512 of its outputs, and two small networks read that token.

    Args:
        channels: C of the latents.
        width: D, a multiple of 8.
    """

    def __init__(self, channels: int, width: int = 256, device=None, dtype=None) -> None:
        super().__init__()
        where = {"device": device, "dtype": dtype}
        self.patch = nn.Conv3d(channels, width, (2, 2, 2), (1, 2, 2), **where)
        self.token = nn.Parameter(torch.zeros(1, 1, width, **where))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=True, **where)
            for _ in range(2)
        )
        self.norm = nn.LayerNorm(width, **where)
        self.space, self.time = (
            nn.Sequential(nn.Linear(width, width, **where), nn.GELU(), nn.Linear(width, 1, **where)) for _ in range(2)
        )
        heads: list[Any] = [self.space, self.time]
        for head in heads:
            nn.init.zeros_(head[-1].weight)
            nn.init.zeros_(head[-1].bias)

    def forward(self, latents_BCFHW: Tensor) -> Tensor:
        """``[B, 2]`` float32: alpha_S in (-1, 1), and alpha_T in [0.25, 4]."""
        own = self.patch.weight.dtype
        # Each frame beside the one before it; the first stands for the one before the video.
        x = self.patch(F.pad(latents_BCFHW.to(own), (0, 0, 0, 0, 1, 0), mode="replicate"))
        x = F.adaptive_avg_pool3d(x, tuple(min(size, most) for size, most in zip(x.shape[2:], POOLED, strict=True)))
        tokens_BLD = x.flatten(2).transpose(1, 2) + _waves(x.shape[2:], x.shape[1], x.device).to(x.dtype)
        tokens_BLD = torch.cat([self.token.expand(len(x), -1, -1), tokens_BLD], dim=1)
        for layer in self.layers:
            tokens_BLD = layer(tokens_BLD)
        summary_BD = self.norm(tokens_BLD[:, 0])
        alpha_s = torch.tanh(self.space(summary_BD).float())
        alpha_t = self.time(summary_BD).float().clamp(math.log(LOWEST), math.log(HIGHEST)).exp()
        return torch.cat([alpha_s, alpha_t], dim=1)


def _waves(grid: torch.Size, width: int, device: torch.device) -> Tensor:
    """Sinusoidal positions of a grid's cells in time, height and width, ``[L, D]``."""
    parts = []
    for axis, share in enumerate((width - 2 * (width // 4), width // 4, width // 4)):
        rates = 1 / 100 ** (torch.arange(0, share, 2, device=device) / share)
        angles = torch.arange(grid[axis], device=device)[:, None] * rates
        wave = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :share]
        shape = [1, 1, 1, share]
        shape[axis] = grid[axis]
        parts.append(wave.reshape(shape).expand(*grid, share))
    return torch.cat(parts, dim=-1).flatten(0, 2)
