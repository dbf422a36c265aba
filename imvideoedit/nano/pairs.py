"""Training on pairs of the nano world: which pairs are in which batch, and the data module of the trainer."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from imvideoedit.common.errors import UserError
from imvideoedit.data.shards import Share
from imvideoedit.edit_batch import EditBatch
from imvideoedit.nano.encoded import EncodedPairs
from imvideoedit.nano.mix import SPLITS, PairMix
from imvideoedit.nano.pair_cache import cached_pairs


class PairBatches(Dataset):
    """Endless batches of encoded pairs: batch i is a function of the seed and i alone, so a resumed run sees the same.

    Every pair comes once in each pass, in an order that the seed and the pass decide; a batch may span two passes.
    """

    def __init__(self, pairs: EncodedPairs, batch_size: int, seed: int) -> None:
        self.pairs, self.batch_size, self.seed = pairs, batch_size, seed
        self._order = functools.lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.pairs))

    def indices(self, index: int) -> list[int]:
        """The pairs of batch ``index``."""
        first = index * self.batch_size
        places = (divmod(place, len(self.pairs)) for place in range(first, first + self.batch_size))
        return [int(self._order(epoch)[offset]) for epoch, offset in places]

    def __getitem__(self, index: int) -> EditBatch:
        return self.pairs.batch(self.indices(index))


class StepSampler(Sampler[int]):
    """Batch indices of one process from step ``start`` on: ``rank, rank + world, …``; its length counts all steps."""

    def __init__(self, steps: int, start: int = 0, rank: int = 0, world: int = 1) -> None:
        self.steps, self.start, self.rank, self.world = steps, start, rank, world

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[int]:
        return (step * self.world + self.rank for step in range(self.start, self.steps))


class NanoPairs(LightningDataModule):
    """Training pairs of the nano world's training compositions, and held-out ones to validate on.

    Args:
        pairs: number of training pairs, each a rendered edit.
        batch_size: pairs a step.
        seed: decides pairs and order.
        resolution: pixels of a side.
        validation_pairs: number of test-composition pairs for the fixed-timestep validation loss; at least 1.
        mix: which edits and texts the training pairs have; single edits, mostly with the edited prompt, if None.
        frames: of a training pair, 4k + 1; above 1 the pairs are videos, both rendered exactly.
        cache: folder of encoded pairs, for the next run with the same ones; None keeps them in memory only.

    Raises:
        UserError: a count is below 1, or the resolution does not suit the backbone.
    """

    def __init__(
        self,
        pairs: int = 20000,
        batch_size: int = 16,
        seed: int = 0,
        resolution: int = 64,
        validation_pairs: int = 64,
        mix: PairMix | None = None,
        frames: int = 1,
        cache: Path | str | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"pairs": pairs, "batch_size": batch_size, "validation_pairs": validation_pairs}.items():
            if value < 1:
                raise UserError(f"data.{name} is {value}; it must be at least 1")
        if frames < 1 or frames % 4 != 1:
            raise UserError(f"data.frames is {frames}; the nano autoencoder takes 4k + 1")
        self.pairs, self.batch_size, self.seed, self.frames = pairs, batch_size, seed, frames
        self.resolution, self.validation_pairs = resolution, validation_pairs
        self.mix, self.cache = mix or PairMix(), cache
        self._encoded: dict[str, EncodedPairs] = {}

    def setup(self, stage: str) -> None:
        """Render and encode everything with the training task's backbone; done once."""
        if self._encoded:
            return
        backbone = self._trainer.lightning_module.backbone
        if self.resolution % backbone.pixel_multiple:
            raise UserError(
                f"data.resolution is {self.resolution}; the backbone {backbone.name} takes multiples of "
                f"{backbone.pixel_multiple}"
            )
        trainer = self._trainer
        share = Share(trainer.global_rank, trainer.world_size, trainer.strategy.barrier)
        for split, count in zip(SPLITS, (self.pairs, self.validation_pairs), strict=True):
            mix, frames = (self.mix, self.frames) if split == "train" else (PairMix(), 1)
            self._encoded[split] = cached_pairs(
                self.cache, backbone, self.seed, count, split, self.resolution, mix, frames, share
            )

    @property
    def _trainer(self) -> Any:
        if self.trainer is None:
            raise RuntimeError("this data module encodes with the backbone of the task that a Trainer fits")
        return self.trainer

    def train_dataloader(self) -> DataLoader:
        """Batches from the step on at which the trainer stands.

        Raises:
            UserError: the trainer has no last step, and the pairs have no end.
        """
        trainer = self._trainer
        if trainer.max_steps < 1:
            raise UserError("nano pairs have no end; set trainer.max_steps to the number of optimizer steps")
        repeats = trainer.accumulate_grad_batches
        sampler = StepSampler(
            trainer.max_steps * repeats, trainer.global_step * repeats, trainer.global_rank, trainer.world_size
        )
        batches = PairBatches(self._encoded["train"], self.batch_size, self.seed)
        return DataLoader(batches, batch_size=None, sampler=sampler)

    def val_dataloader(self) -> DataLoader:
        """The held-out pairs in order."""
        pairs = self._encoded["test"]
        starts = range(0, len(pairs), self.batch_size)
        batches: Any = [pairs.batch(range(start, min(start + self.batch_size, len(pairs)))) for start in starts]
        return DataLoader(batches, batch_size=None)
