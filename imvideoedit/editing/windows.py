"""Long videos in windows: each step's velocity is that of overlapping windows, blended, so that no seam can form.

Shapes: B batch, C channels, F latent frames of the video, H W latent pixels.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from imvideoedit.flow.solvers import State, Velocity, video_of, with_video


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

    Where a state holds more than the video, the rest is that of the whole video: each window gets all of it, and its
    velocity is the mean of the windows'.

    Args:
        velocities: one a window, each called with its part of the state.
        done: called after each window.
    """
    weights = blend_weights(windows)

    def velocity(x: State, sigma_B: Tensor) -> State:
        sum_BCFHW = torch.zeros_like(video_of(x))
        rests = []  # what the windows say of all but the video
        for of_window, window, weight_F in zip(velocities, windows, weights, strict=True):
            part = of_window(with_video(x, video_of(x)[:, :, window]), sigma_B)
            if done is not None:
                done()
            if len(windows) == 1:
                return part
            sum_BCFHW[:, :, window] += weight_F.to(sum_BCFHW)[:, None, None] * video_of(part)
            rests.append({} if part is video_of(part) else {k: v for k, v in part.items() if k != "video"})
        mean = tree_map(lambda *each: sum(each) / len(each), *rests)
        return {**mean, "video": sum_BCFHW} if isinstance(x, dict) else sum_BCFHW

    return velocity
