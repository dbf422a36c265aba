"""Batches of the nano world for pretraining: batch i is a function of the seed and i alone, so resume is exact."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .grammar import caption
from .render import render
from .scenes import Scene, sample_scene


def to_tensor(video_FHWC: np.ndarray) -> Tensor:
    """uint8 ``[F, H, W, 3]`` to float ``[3, F, H, W]`` in [-1, 1]."""
    return torch.from_numpy(video_FHWC).permute(3, 0, 1, 2).float() / 127.5 - 1


def videos(scenes: Sequence[Scene], frames: int, size: tuple[int, int] = (64, 64)) -> Tensor:
    """Render scenes to ``[B, 3, F, H, W]`` in [-1, 1]."""
    return torch.stack([to_tensor(render(scene, frames, size)) for scene in scenes])


class WorldBatches(Dataset):
    """``steps`` batches ``{"video": [B, 3, F, H, W], "text": B captions}`` of training scenes.

    Args:
        shapes: (batch size, frames) pairs, taken in turn.
        start: index of the first batch, to go on after a resume.
    """

    def __init__(self, seed: int, steps: int, shapes: Sequence[tuple[int, int]], start: int = 0) -> None:
        self.seed, self.steps, self.shapes, self.start = seed, steps, [tuple(s) for s in shapes], start

    def __len__(self) -> int:
        return max(self.steps - self.start, 0)

    def __getitem__(self, index: int) -> dict:
        if index >= len(self):
            raise IndexError(index)
        index += self.start
        rng = np.random.default_rng((self.seed, index))
        size, frames = self.shapes[index % len(self.shapes)]
        scenes = [sample_scene(rng, "train") for _ in range(size)]
        return {"video": videos(scenes, frames), "text": [caption(scene, rng) for scene in scenes]}

    def loader(self) -> DataLoader:
        """The batches in order, one at a time."""
        return DataLoader(self, batch_size=None, shuffle=False)
