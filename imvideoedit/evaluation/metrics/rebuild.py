"""A source through the autoencoder and back, a part at a time."""

from collections import deque
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from imvideoedit.evaluation.metrics.frames import Frames
from imvideoedit.wan.backbone import Backbone

GROUPS = 2  # latent frames at a time


def rebuilt_pairs(source: Frames, length: int, backbone: Backbone) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every frame with what the autoencoder makes of it, uint8 ``[H, W, 3]``.

    Height and width are cut to what the autoencoder takes, and the last frames left out that fill no group.

    Args:
        length: of the source, in frames.
    """
    group = backbone.vae_temporal
    read = _cut(source, backbone.pixel_multiple)
    waiting: deque[np.ndarray] = deque()

    def parts() -> Iterator[Tensor]:
        left = (length - 1) // group * group + 1
        size = 1 + GROUPS * group
        while left > 0:
            frames = [next(read) for _ in range(min(size, left))]
            waiting.extend(frames)
            yield torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
            left, size = left - len(frames), GROUPS * group

    for part_BCFHW in backbone.decode_parts(backbone.encode_parts(parts())):
        pixels_FHWC = ((part_BCFHW[0].float().cpu() + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 3, 0)
        for frame_HWC in pixels_FHWC.numpy():
            yield waiting.popleft(), frame_HWC


def _cut(source: Frames, multiple: int) -> Iterator[np.ndarray]:
    for frame_HWC in source:
        height, width = (length // multiple * multiple for length in frame_HWC.shape[:2])
        if not height or not width:
            raise ValueError(f"frames of {frame_HWC.shape[:2]} are below the autoencoder's {multiple} pixels")
        yield frame_HWC[:height, :width]
