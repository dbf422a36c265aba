"""Long videos in windows: each step's velocity is that of overlapping windows, blended, so that no seam can form.

Shapes: B batch, C channels, F latent frames of the video, H W latent pixels.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from imvideoedit.flow.solvers import Velocity


def plan_windows(frames: int, length: int, overlap: int) -> list[slice]:
    """Windows over ``frames`` latent frames, evenly spread.

    Args:
        frames: at least 1.
        length: of a window, at least 1; a video of at most that many frames is one window.
        overlap: frames that neighbours share at least; one less than ``length`` at most.

    Returns:
        Slices in order, all of ``min(frames, length)`` frames, that cover every frame.
    """
    if frames <= length:
        return [slice(0, frames)]
    step = max(length - overlap, 1)
    count = -(-(frames - length) // step) + 1
    starts = [round(index * (frames - length) / (count - 1)) for index in range(count)]
    return [slice(start, start + length) for start in starts]


def blend_weights(windows: Sequence[slice]) -> list[Tensor]:
    """The weight of each window at each of its frames: ``[length]`` float32 a window.

    Where two windows overlap one fades out while the other fades in; at every frame the weights add up to 1.
    """
    raw = []
    for index, window in enumerate(windows):
        place = torch.arange(window.start, window.stop, dtype=torch.float64) + 0.5
        weight = torch.ones_like(place)
        if index > 0:
            weight = torch.minimum(weight, (place - window.start) / max(windows[index - 1].stop - window.start, 1))
        if index + 1 < len(windows):
            weight = torch.minimum(weight, (window.stop - place) / max(window.stop - windows[index + 1].start, 1))
        raw.append(weight)
    total = torch.zeros(windows[-1].stop, dtype=torch.float64)
    for window, weight in zip(windows, raw, strict=True):
        total[window] += weight
    return [(weight / total[window]).float() for window, weight in zip(windows, raw, strict=True)]


def blended(
    velocities: Sequence[Velocity], windows: Sequence[slice], done: Callable[[], None] | None = None
) -> Velocity:
    """The velocity of a video from those of its windows.

    Args:
        velocities: one a window, each called with its part of the state.
        done: called after each window.
    """
    weights = blend_weights(windows)

    def velocity(x_BCFHW: Tensor, sigma_B: Tensor) -> Tensor:
        sum_BCFHW = torch.zeros_like(x_BCFHW) if len(windows) > 1 else None
        for of_window, window, weight_F in zip(velocities, windows, weights, strict=True):
            part_BCFHW = of_window(x_BCFHW[:, :, window], sigma_B)
            if done is not None:
                done()
            if sum_BCFHW is None:
                return part_BCFHW
            sum_BCFHW[:, :, window] += weight_F.to(x_BCFHW)[:, None, None] * part_BCFHW
        assert sum_BCFHW is not None
        return sum_BCFHW

    return velocity
