"""What a Qwen3-VL is given: frames as patches, and the text around them, as its own processor makes both.

    <|im_start|>user
    <0.0 seconds>[frames 0, 1]<0.6 seconds>[frames 2, 3] … [reference] instruction

Made here, as transformers' processor for videos needs torchvision.

Shapes: H W pixels, P patches, V values of a patch.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from imvideoedit.video.geometry import resized

VIDEO, IMAGE = "<|video_pad|>", "<|image_pad|>"  # stand where what is seen is put


def prompt(times: Sequence[float], of_group: int, of_images: Sequence[int]) -> str:
    """What is read before the instruction.

    Args:
        times: in seconds, of each group of frames; ``of_group``: tokens of one.
        of_images: tokens of each image.
    """
    groups = "".join(f"<{time:.1f} seconds>{_seen(VIDEO, of_group)}" for time in times)
    return f"<|im_start|>user\n{groups}{''.join(_seen(IMAGE, count) for count in of_images)}"


def _seen(token: str, count: int) -> str:
    return f"<|vision_start|>{token * count}<|vision_end|>"


def times_of(seconds: Sequence[float], group: int) -> list[float]:
    """The middle of each group of frames, the last frame repeated until its group is complete."""
    whole = [*seconds, *(seconds[-1] for _ in range(-len(seconds) % group))]
    return [(whole[start] + whole[start + group - 1]) / 2 for start in range(0, len(whole), group)]


def tokens_of(grid: Sequence[int], merge: int) -> int:
    """Tokens of a grid of patches (in time, height, width)."""
    return grid[0] * grid[1] * grid[2] // merge**2


def patches(
    frames: Sequence[np.ndarray], size: tuple[int, int], patch: int, merge: int, group: int
) -> tuple[Tensor, tuple[int, int, int]]:
    """Frames as the model takes them: patches in [-1, 1] ``[P, V]``, and how many in time, height and width.

    The patches of a token stand together.

    Args:
        frames: uint8 ``[H, W, 3]``; the last one is repeated until the groups are complete.
        size: height and width that they are resized to.
        patch: pixels of a patch's side; ``merge`` patches of a token's side; ``group`` frames of a patch.
    """
    shown = list(resized(frames, size))
    shown += shown[-1:] * (-len(shown) % group)
    x_FHWC = torch.from_numpy(np.stack(shown)).float() / 127.5 - 1
    grid = (len(shown) // group, size[0] // patch, size[1] // patch)
    split = x_FHWC.permute(0, 3, 1, 2).reshape(
        grid[0], group, 3, grid[1] // merge, merge, patch, grid[2] // merge, merge, patch
    )
    together = split.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return together.reshape(grid[0] * grid[1] * grid[2], 3 * group * patch * patch), grid
