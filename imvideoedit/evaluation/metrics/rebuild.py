"""A source through the autoencoder and back, a few latent frames at a time."""

from collections import deque
from collections.abc import Iterator

import numpy as np
from torch import Tensor

from imvideoedit.evaluation.metrics.frames import Frames
from imvideoedit.video.geometry import from_model, to_model
from imvideoedit.wan.backbone import Backbone

GROUPS = 2  # latent frames per part


def rebuilt_pairs(source: Frames, length: int, backbone: Backbone) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every frame with its reconstruction by the autoencoder, uint8 ``[H, W, 3]``.

    Height and width are cropped to multiples that the autoencoder takes; last frames that fill no group are left out.

    Args:
        length: number of frames of the source.
    """
    group = backbone.vae_temporal
    read = _cropped(source, backbone.pixel_multiple)
    waiting: deque[np.ndarray] = deque()

    def parts() -> Iterator[Tensor]:
        left = (length - 1) // group * group + 1
        size = 1 + GROUPS * group
        while left > 0:
            frames = [next(read) for _ in range(min(size, left))]
            waiting.extend(frames)
            yield to_model(frames)
            left, size = left - len(frames), GROUPS * group

    for part_BCFHW in backbone.decode_parts(backbone.encode_parts(parts())):
        for frame_HWC in from_model(part_BCFHW.float()):
            yield waiting.popleft(), frame_HWC


def _cropped(source: Frames, multiple: int) -> Iterator[np.ndarray]:
    for frame_HWC in source:
        height, width = (length // multiple * multiple for length in frame_HWC.shape[:2])
        if not height or not width:
            raise ValueError(f"frames of {frame_HWC.shape[:2]} are smaller than the autoencoder's {multiple} pixels")
        yield frame_HWC[:height, :width]
