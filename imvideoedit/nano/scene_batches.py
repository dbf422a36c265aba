"""Batches of the nano world for pretraining: batch i depends on the seed and i alone, so resuming is exact."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from imvideoedit.world.render import render
from imvideoedit.world.scenes import Scene, sample_scene


def to_tensor(video_FHWC: np.ndarray) -> Tensor:
    """uint8 ``[F, H, W, 3]`` to float ``[3, F, H, W]`` in [-1, 1]."""
    return torch.from_numpy(video_FHWC).permute(3, 0, 1, 2).float() / 127.5 - 1


def videos(scenes: Sequence[Scene], frames: int, size: tuple[int, int] = (64, 64)) -> Tensor:
    """Render scenes to ``[B, 3, F, H, W]`` in [-1, 1]."""
    return torch.stack([to_tensor(render(scene, frames, size)) for scene in scenes])


class SeededBatches(Dataset):
    """``steps`` batches for each of ``ranks`` processes, in the order of a distributed sampler.

    Args:
        shapes: (batch size, frames) pairs, in turn; all ranks have the same one in a step.
        start: first batch of each rank, after a resume.
    """

    def __init__(
        self, seed: int, steps: int, shapes: Sequence[tuple[int, int]], start: int = 0, ranks: int = 1
    ) -> None:
        self.seed, self.steps, self.shapes = seed, steps, [tuple(shape) for shape in shapes]
        self.start, self.ranks = start, ranks

    def __len__(self) -> int:
        return max(self.steps - self.start, 0) * self.ranks

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index >= len(self):
            raise IndexError(index)
        index += self.start * self.ranks
        return self.draw(
            np.random.default_rng((self.seed, index)), *self.shapes[index // self.ranks % len(self.shapes)]
        )

    @abstractmethod
    def draw(self, rng: np.random.Generator, size: int, frames: int) -> dict[str, Any]:
        """A batch of ``size`` training scenes of ``frames`` frames."""

    def loader(self) -> DataLoader:
        """The batches in order, one at a time."""
        return DataLoader(self, batch_size=None, shuffle=False)


class WorldBatches(SeededBatches):
    """Videos of training scenes: ``{"video": [B, 3, F, H, W]}``."""

    def draw(self, rng: np.random.Generator, size: int, frames: int) -> dict[str, Any]:
        return {"video": videos([sample_scene(rng, "train") for _ in range(size)], frames)}
