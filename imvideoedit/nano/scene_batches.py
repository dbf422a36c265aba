"""Batches of the nano world for pretraining: batch i depends on the seed and i alone, so resuming is exact."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from imvideoedit.nano.readouts import label_tokens
from imvideoedit.world.grammar import caption
from imvideoedit.world.render import render
from imvideoedit.world.scenes import Scene, plain_scene, sample_scene

TOKEN = 8  # pixels of a token's side: the autoencoder's patch times the transformer's


def to_tensor(video_FHWC: np.ndarray) -> Tensor:
    """uint8 ``[F, H, W, 3]`` to float ``[3, F, H, W]`` in [-1, 1]."""
    return torch.from_numpy(video_FHWC).permute(3, 0, 1, 2).float() / 127.5 - 1


def videos(scenes: Sequence[Scene], frames: int, size: tuple[int, int] = (64, 64)) -> Tensor:
    """Render scenes to ``[B, 3, F, H, W]`` in [-1, 1]."""
    return torch.stack([to_tensor(render(scene, frames, size)) for scene in scenes])


class WorldBatches(Dataset):
    """``steps`` batches of training scenes for each of ``ranks`` processes, in the order of a distributed sampler.

    A batch is ``{"video": [B, 3, F, H, W], "text": B captions, "labels": [B, F', h, w, 4]}`` (see ``label_tokens``).

    Args:
        shapes: (batch size, frames) pairs, in turn; all ranks have the same one in a step.
        start: first batch of each rank, after a resume.
        plain: fractions of plain scenes of one thing (no light, style or camera) at the first and the last step.
    """

    def __init__(
        self,
        seed: int,
        steps: int,
        shapes: Sequence[tuple[int, int]],
        start: int = 0,
        ranks: int = 1,
        plain: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self.seed, self.steps, self.shapes = seed, steps, [tuple(s) for s in shapes]
        self.start, self.ranks, self.plain = start, ranks, plain

    def __len__(self) -> int:
        return max(self.steps - self.start, 0) * self.ranks

    def __getitem__(self, index: int) -> dict:
        if index >= len(self):
            raise IndexError(index)
        index += self.start * self.ranks
        step = index // self.ranks
        rng = np.random.default_rng((self.seed, index))
        size, frames = self.shapes[step % len(self.shapes)]
        share = self.plain[0] + (self.plain[1] - self.plain[0]) * step / self.steps
        scenes = [
            plain_scene(rng, "train") if rng.random() < share else sample_scene(rng, "train") for _ in range(size)
        ]
        video = videos(scenes, frames)
        grid = (video.shape[3] // TOKEN, video.shape[4] // TOKEN)
        labels = torch.stack([label_tokens(scene, (frames - 1) // 4 + 1, grid) for scene in scenes])
        return {"video": video, "text": [caption(scene, rng) for scene in scenes], "labels": labels}

    def loader(self) -> DataLoader:
        """The batches in order, one at a time."""
        return DataLoader(self, batch_size=None, shuffle=False)
