"""Pretext tasks on a source video, from which motion is learned without edits (SAMA, Sec. 3.3): pixels in, pixels out.

    cube   a block of consecutive frames is black
    speed  every other frame, so that it runs twice as fast
    tube   the video is cut into 2 x 2 x 2 parts in time and space, which are put in another order

The target stays, and a sentence before the text names the task.

Shapes: F frames, H W pixels.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

SENTENCES = {
    "none": "",
    "cube": "[Complete the missing regions in the video.]",
    "speed": "[Restore the video to normal playback speed.]",
    "tube": "[Restore the correct spatio-temporal order of the video segments.]",
}
RATIOS = {"none": 1, "cube": 2, "speed": 3, "tube": 4}
MISSING = 0.3  # of the frames
TUBES = 8


def draw_task(rng: np.random.Generator) -> str:
    """A name of ``RATIOS``, by their ratios."""
    return str(rng.choice(list(RATIOS), p=np.array(list(RATIOS.values())) / sum(RATIOS.values())))


def with_pretext(example: dict[str, Any], task: str, rng: np.random.Generator) -> dict[str, Any]:
    """A training example whose source a task has changed, and whose prompt begins with its sentence.

    Args:
        example: ``source`` uint8 ``[F, H, W, 3]``, ``prompt``, and ``ahead``, the frames behind the source's last,
            where they are known; without them the last frame is repeated.
    """
    source_FHWC = example["source"]
    if task == "cube":
        source_FHWC = without_cube(source_FHWC, rng)
    elif task == "speed":
        source_FHWC = sped_up(source_FHWC, example.get("ahead"))
    elif task == "tube":
        source_FHWC = shuffled(source_FHWC, draw_order(rng))
    return example | {"source": source_FHWC, "prompt": f"{SENTENCES[task]} {example['prompt']}".strip()}


def without_cube(video_FHWC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A copy with a random block of ``MISSING`` of the frames black, at least one."""
    frames = len(video_FHWC)
    length = max(1, round(MISSING * frames))
    start = int(rng.integers(frames - length + 1))
    cut_FHWC = video_FHWC.copy()
    cut_FHWC[start : start + length] = 0
    return cut_FHWC


def sped_up(video_FHWC: np.ndarray, ahead_FHWC: np.ndarray | None = None) -> np.ndarray:
    """Every other frame of the video and of what follows it, as many as the video has.

    Args:
        ahead_FHWC: the next frames; F - 1 are enough, and where there are fewer, the last one is repeated.
    """
    whole = video_FHWC if ahead_FHWC is None else np.concatenate([video_FHWC, ahead_FHWC])
    index_F = np.minimum(2 * np.arange(len(video_FHWC)), len(whole) - 1)
    return whole[index_F]


def draw_order(rng: np.random.Generator) -> np.ndarray:
    """A random order of the ``TUBES`` parts, other than their own."""
    while True:
        order = rng.permutation(TUBES)
        if (order != np.arange(TUBES)).any():
            return order


def shuffled(video_FHWC: np.ndarray, order: Sequence[int] | np.ndarray) -> np.ndarray:
    """The video with part ``order[i]`` in place i; ``np.argsort(order)`` restores it.

    An odd number of frames holds the first one, and cuts the others.

    Raises:
        ValueError: height or width is odd.
    """
    frames, height, width = video_FHWC.shape[:3]
    if height % 2 or width % 2:
        raise ValueError(f"{height}x{width} pixels cannot be halved")
    halves = [_halves(frames % 2, frames), _halves(0, height), _halves(0, width)]
    places = list(itertools.product(*halves))
    made_FHWC = video_FHWC.copy()
    for place, part in zip(places, order, strict=True):
        made_FHWC[place] = video_FHWC[places[part]]
    return made_FHWC


def _halves(start: int, stop: int) -> tuple[slice, slice]:
    middle = (start + stop) // 2
    return slice(start, middle), slice(middle, stop)
