"""The six dimensions as functions of frames or features; sections are those of VBench's paper.

Legend: N frames, D channels.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from imvideoedit.evaluation.metrics.flow import Flow, between
from imvideoedit.evaluation.metrics.frames import Frames, batches, features, mean, pairs, to_float

SAMPLED_FPS = 8  # frame rate of dynamic degree
FASTEST = 0.05  # share of pixels whose mean flow decides whether a pair moves
MOTION = 6.0  # least flow that counts as motion, in pixels at a shorter side of 256
MOVING = 4 / 16  # least share of moving frames
MUSIQ_SIDE = 512  # pixels of the longer side, at most


def consistency(features_ND: Tensor) -> float:
    """Subject consistency of DINO's unit vectors, background consistency of CLIP's (section 4.1).

    mean over i >= 1 of (max(0, cos(f_i, f_i-1)) + max(0, cos(f_i, f_0))) / 2: 1 for a frozen video, NaN for one frame.
    """
    later = features_ND[1:]
    before = (later * features_ND[:-1]).sum(1).clamp(min=0)
    first = (later * features_ND[:1]).sum(1).clamp(min=0)
    return mean(((before + first) / 2).tolist())


def motion_smoothness(frames: Frames, flow: Flow) -> float:
    """1 - mean |odd frame - interpolation of its neighbours| / 255 (section 4.1): 1 for a frozen video.

    NaN for fewer than three frames.
    """
    errors = []
    window: list[Tensor] = []
    for frame in frames:
        window = [*window[-2:], to_float(frame)]
        if len(window) == 3:
            errors.append(float((window[1] - between(window[0], window[2], flow).clamp(0, 1)).abs().mean()))
            window = window[-1:]
    return 1 - mean(errors)


def dynamic_degree(frames: Frames, fps: float, flow: Flow) -> float:
    """1 if a video moves, else 0 (section 4.1); its mean over videos is the share that moves.

    Frames are sampled at about 8 a second. A pair moves if the mean length of the fastest 5 % of its flow exceeds 6
    pixels at a shorter side of 256, or more for a video of fewer than 8 frames a second; a quarter of the sampled
    frames must move.
    """
    step = max(1, round(fps / SAMPLED_FPS))
    threshold, moving, count = 0.0, 0, 0
    for first, second in pairs(frames, step):
        threshold = max(1.0, SAMPLED_FPS / fps) * MOTION * min(first.shape[:2]) / 256
        moving += _speed(flow(to_float(first), to_float(second))) > threshold
        count += 1
    return float(count > 0 and moving >= max(1, round(MOVING * (count + 1))))


def _speed(flow: Tensor) -> float:
    """Mean flow of the fastest pixels, in pixels."""
    lengths = flow.norm(dim=0).flatten()
    return float(lengths.topk(max(1, int(len(lengths) * FASTEST))).values.mean())


def aesthetic_quality(frames: Frames, images: Callable[[Tensor], Tensor], head: Callable[[Tensor], Tensor]) -> float:
    """LAION's linear head on CLIP L/14's unit vectors, scaled from 0 to 10 to 0 to 1 (section 4.1)."""
    with torch.inference_mode():
        return float(head(features(frames, images)).mean() / 10)


def imaging_quality(frames: Frames, musiq: Callable[[Tensor], Tensor]) -> float:
    """MUSIQ on frames of at most 512 pixels a side, scaled from 0 to 100 to 0 to 1 (section 4.1)."""
    scores: list[float] = []
    for batch in batches(frames, 1):
        scale = MUSIQ_SIDE / max(batch.shape[-2:])
        if scale < 1:
            batch = torch.nn.functional.interpolate(batch, scale_factor=scale, mode="bilinear")
        with torch.inference_mode():
            scores.append(float(musiq(batch)) / 100)
    return mean(scores)
