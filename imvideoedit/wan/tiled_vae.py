"""An autoencoder that works on overlapping tiles of a frame, as diffusers' tiling, but one group of frames at a time.

What a tile carries from group to group waits in the CPU's memory, so that the device holds one tile alone. Tiles are
blended where they overlap: what is made differs a little from that of whole frames, and equals diffusers'.

Shapes: B batch, C channels, F frames, H W pixels or latent pixels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Sides = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True)
class Tiling:
    """Tiles of a frame.

    Attributes:
        tile, stride: sides, and distances from one to the next, of what goes in.
        stride_out, blend: distances, and widths of the blended edges, of what comes out.
    """

    tile: Sides
    stride: Sides
    stride_out: Sides
    blend: Sides


def encoding_tiles(vae: Any, height: int, width: int) -> Tiling | None:
    """The tiles of frames of so many pixels, where ``vae.enable_tiling`` was called and they are larger than one."""
    tile, stride = _sides(vae, "min"), _sides(vae, "stride")
    if not vae.use_tiling or (height <= tile[0] and width <= tile[1]):
        return None
    scale = vae.config.scale_factor_spatial // (vae.config.patch_size or 1)  # of squares of pixels to latents
    out = (stride[0] // scale, stride[1] // scale)
    return Tiling(tile, stride, out, (tile[0] // scale - out[0], tile[1] // scale - out[1]))


def decoding_tiles(vae: Any, height: int, width: int) -> Tiling | None:
    """The tiles of so many latent pixels, likewise."""
    scale, patch = vae.config.scale_factor_spatial, vae.config.patch_size or 1
    tile, stride = _sides(vae, "min"), _sides(vae, "stride")
    latent = (tile[0] // scale, tile[1] // scale)
    if not vae.use_tiling or (height <= latent[0] and width <= latent[1]):
        return None
    out = (stride[0] // patch, stride[1] // patch)
    blend = (tile[0] // patch - out[0], tile[1] // patch - out[1])
    return Tiling(latent, (stride[0] // scale, stride[1] // scale), out, blend)


def tile_area(vae: Any) -> float:
    """Pixels of a tile; endless for an autoencoder that has none."""
    return math.prod(_sides(vae, "min")) if hasattr(vae, "tile_sample_min_height") else math.inf


def _sides(vae: Any, what: str) -> Sides:
    return getattr(vae, f"tile_sample_{what}_height"), getattr(vae, f"tile_sample_{what}_width")


class InTiles:
    """Runs a causal part of an autoencoder on the tiles of each group of frames in turn.

    Args:
        vae: whose ``blend_v`` and ``blend_h`` are used.
        run: ``(x_BCFHW, state, **options)`` to what comes out; changes the state.
        states: entries of a state.
        scale: of what comes out, a side by that of what goes in.
    """

    def __init__(self, vae: Any, tiling: Tiling, run: Callable[..., Tensor], states: int, scale: float) -> None:
        self._vae, self._tiling, self._run, self._scale = vae, tiling, run, scale
        self._new: Callable[[], list[Any]] = lambda: [None] * states
        self._states: dict[Sides, list[Any]] = {}

    def __call__(self, x_BCFHW: Tensor, **options: Any) -> Tensor:
        """What comes out of whole frames."""
        height, width = x_BCFHW.shape[3:]
        rows = [
            [self._tile(x_BCFHW, (top, left), options) for left in range(0, width, self._tiling.stride[1])]
            for top in range(0, height, self._tiling.stride[0])
        ]
        (tall, wide), blend, kept = self._tiling.stride_out, self._tiling.blend, []
        for i, row in enumerate(rows):
            for j, tile in enumerate(row):
                if i > 0:
                    tile = self._vae.blend_v(rows[i - 1][j], tile, blend[0])
                if j > 0:
                    tile = self._vae.blend_h(row[j - 1], tile, blend[1])
            kept.append(torch.cat([tile[..., :tall, :wide] for tile in row], dim=4))
        return torch.cat(kept, dim=3)[..., : round(self._scale * height), : round(self._scale * width)]

    def _tile(self, x_BCFHW: Tensor, place: Sides, options: dict[str, Any]) -> Tensor:
        (top, left), (tall, wide) = place, self._tiling.tile
        state = _moved(self._states.get(place) or self._new(), x_BCFHW.device)
        out_BCFHW = self._run(x_BCFHW[..., top : top + tall, left : left + wide], state, **options)
        self._states[place] = _moved(state, torch.device("cpu"))
        return out_BCFHW


def _moved(state: list[Any], device: torch.device) -> list[Any]:
    """A state on a device; entries that are no tensors are diffusers' marks."""
    return [each.to(device) if isinstance(each, Tensor) else each for each in state]
