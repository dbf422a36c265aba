"""The condition of Wan's image-to-video models: a masked video's latents, and a mask at pixel rate, beside the noise.

Wan's mask is 1 where the video is kept and 0 where it is generated. A mask of this package is white where the edit is,
so it is inverted here, and nowhere else.

Shapes: B batch, C latent channels, F frames (of pixels, or of latents behind a prime), G frames of a latent frame after
the first, H W pixels (of latents behind a prime).
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from imvideoedit.wan.image_to_video import MASK_CHANNELS

GREY = 128  # uint8 of zero in [-1, 1], in place of what is generated


def masked_frames(
    frames: Iterable[np.ndarray], masks: Iterable[np.ndarray], first: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """The video with grey where it is generated, uint8 ``[H, W, 3]`` a frame.

    Args:
        frames: uint8 ``[H, W, 3]`` each.
        masks: uint8 ``[H, W]`` each, white (above 127) where the edit is; as many.
        first: given whole in place of the first frame, uint8 ``[H, W, 3]``; None: the first frame is masked, too.

    Raises:
        ValueError: there are fewer or more masks than frames.
    """
    for number, (frame_HWC, mask_HW) in enumerate(zip(frames, masks, strict=True)):
        if number == 0 and first is not None:
            yield first
        else:
            yield np.where(mask_HW[..., None] > 127, np.uint8(GREY), frame_HWC)


def kept(mask_B1FHW: Tensor, first: bool) -> Tensor:
    """Wan's mask, 1 where the video is kept: float ``[B, 1, F, H, W]``.

    Args:
        mask_B1FHW: in [0, 1], white where the edit is.
        first: the first frame is given whole.
    """
    kept_B1FHW = (mask_B1FHW <= 0.5).float()
    if first:
        kept_B1FHW[:, :, 0] = 1
    return kept_B1FHW


def pack_mask(kept_B1FHW: Tensor, size: tuple[int, int], group: int = MASK_CHANNELS) -> Tensor:
    """A mask as diffusers' ``WanImageToVideoPipeline.prepare_latents`` packs it: float ``[B, G, F', H', W']``.

    The nearest pixel of each latent pixel; the first frame ``group`` times; then ``group`` frames a latent frame.

    Args:
        kept_B1FHW: 1 where the video is kept; F = G * k + 1.
        size: (H', W') of the latents.
        group: frames of a latent frame after the first, G.
    """
    frames = kept_B1FHW.shape[2]
    small_BFHW = functional.interpolate(kept_B1FHW[:, 0].float(), size, mode="nearest")
    first_BGHW = small_BFHW[:, :1].expand(-1, group, -1, -1)
    long_BFHW = torch.cat([first_BGHW, small_BFHW[:, 1:]], dim=1)
    return long_BFHW.unflatten(1, ((frames - 1) // group + 1, group)).transpose(1, 2)


def unpack_mask(packed_BGFHW: Tensor) -> Tensor:
    """Inverse of :func:`pack_mask` at the latents' height and width: ``[B, 1, F, H', W']``."""
    group = packed_BGFHW.shape[1]
    return packed_BGFHW.transpose(1, 2).flatten(1, 2)[:, None, group - 1 :]


def condition_channels(mask_B1FHW: Tensor, masked_BCFHW: Tensor, first_BC1HW: Tensor | None) -> Tensor:
    """What stands beside the noise, in diffusers' order: mask, then latents, ``[B, G + C, F', H', W']``.

    Args:
        mask_B1FHW: pixels in [0, 1], white where the edit is.
        masked_BCFHW: latents of :func:`masked_frames`.
        first_BC1HW: latents of the first frame where it is given whole. They are those of the masked video's first
            frame, which the autoencoder encodes alone.
    """
    height, width = masked_BCFHW.shape[3:]
    packed_BGFHW = pack_mask(kept(mask_B1FHW, first_BC1HW is not None), (height, width))
    if first_BC1HW is not None:
        masked_BCFHW = torch.cat([first_BC1HW.to(masked_BCFHW), masked_BCFHW[:, :, 1:]], dim=2)
    return torch.cat([packed_BGFHW.to(masked_BCFHW), masked_BCFHW], dim=1)
