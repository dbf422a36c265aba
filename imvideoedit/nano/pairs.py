"""Training pairs of the nano world: which pairs are in which batch, and the data module."""

import functools
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from imvideoedit.common.errors import UserError
from imvideoedit.common.owner import owned
from imvideoedit.data.shards import ProcessInfo
from imvideoedit.edit_batch import EditBatch
from imvideoedit.nano.encoded import EncodedPairs, PairSet, encoded_pairs
from imvideoedit.nano.inputs import Preparation
from imvideoedit.nano.mix import PairMix


class PairBatches(Dataset):
    """Endless batches of encoded pairs: batch i depends on the seed and i alone, so resuming is exact.

    Every pair comes once in each pass, in an order that depends on the seed and the pass; a batch may span two passes.
    Passes take the variants of the pairs in turn.
    """

    def __init__(self, pairs: EncodedPairs, batch_size: int, seed: int) -> None:
        self.pairs, self.batch_size, self.seed = pairs, batch_size, seed
        self._order = functools.lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.pairs))

    def indices(self, index: int) -> list[int]:
        """The pairs of batch ``index``, as :meth:`EncodedPairs.batch` numbers them."""
        first, count = index * self.batch_size, len(self.pairs)
        places = (divmod(place, count) for place in range(first, first + self.batch_size))
        return [int(self._order(epoch)[offset]) + epoch % self.pairs.variants * count for epoch, offset in places]

    def __getitem__(self, index: int) -> EditBatch:
        return self.pairs.batch(self.indices(index))


class StepSampler(Sampler[int]):
    """Batch indices of one process from step ``start`` on, every ``world``-th one; its length counts all steps."""

    def __init__(self, steps: int, start: int = 0, rank: int = 0, world: int = 1) -> None:
        self.steps, self.start, self.rank, self.world = steps, start, rank, world

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[int]:
        return (step * self.world + self.rank for step in range(self.start, self.steps))


class NanoPairs(LightningDataModule):
    """Training pairs of the nano world's training compositions, and held-out ones to validate on.

    Each comes with the method's inputs, exact (see :meth:`imvideoedit.world.edits.Edit.inputs`), and is changed by the
    method's ``transform`` before it is encoded, a held-out pair always alike. Where a transform changes targets, pairs
    have no labels.

    Args:
        pairs: number of training pairs, each a rendered edit.
        batch_size: pairs in a batch of each process.
        seed: of pairs and order.
        resolution: height and width in pixels.
        validation_pairs: number of test-composition pairs for the validation loss at fixed noise levels; at least 1.
        mix: of edits and texts in the training pairs.
        frames: of a training pair, 4k + 1; above 1 the pairs are videos, both rendered exactly, and so are held-out
            ones of a method with inputs, for which a still may say too much.
        film: clips of ``frames`` frames are filmed from pairs of stills (see :mod:`imvideoedit.data.film`) instead of
            rendered: training still sees single images alone. Held-out pairs are then exact videos; films have no
            labels.
        variants: times that each pair is filmed or transformed, and encoded, at least 1; passes over the pairs take
            them in turn.
        cache: folder of encoded pairs for later runs; None keeps them in memory only.

    Raises:
        UserError: a count is below 1, the resolution does not suit the backbone, the nano world lacks an input that the
            method needs, or there are variants for a method without a transform.
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
        variants: int = 1,
        film: bool = False,
    ) -> None:
        super().__init__()
        counts = {"pairs": pairs, "batch_size": batch_size, "validation_pairs": validation_pairs, "variants": variants}
        for name, value in counts.items():
            if value < 1:
                raise UserError(f"data.{name} is {value}; it must be at least 1")
        if frames < 1 or frames % 4 != 1:
            raise UserError(f"data.frames is {frames}; the nano autoencoder takes 4k + 1")
        self.pairs, self.batch_size, self.seed, self.frames = pairs, batch_size, seed, frames
        if film and frames == 1:
            raise UserError("data.film makes clips, but data.frames is 1; give the frames of a clip, such as 17")
        self.film = film
        self.resolution, self.validation_pairs = resolution, validation_pairs
        self.mix, self.cache, self.variants = mix or PairMix(), cache, variants
        self._encoded: list[EncodedPairs] = []  # for training and for validation

    def setup(self, stage: str) -> None:
        """Render and encode the pairs with the training task's backbone; further calls change nothing."""
        if self._encoded:
            return
        trainer: Any = self.trainer
        backbone = trainer.lightning_module.backbone
        if self.resolution % backbone.pixel_multiple:
            raise UserError(
                f"data.resolution is {self.resolution}; the backbone {backbone.name} takes multiples of "
                f"{backbone.pixel_multiple}"
            )
        method = trainer.lightning_module.method
        asked, exact = Preparation.of(method, self.film), Preparation.of(method)
        if self.variants > 1 and asked.transform is None and not self.film:
            raise UserError(
                f"data.variants is {self.variants}, but the method {method.name} changes no example; leave it at 1"
            )
        process = ProcessInfo(trainer.global_rank, trainer.world_size, trainer.strategy.barrier)
        train = PairSet(
            self.seed, self.pairs, "train", self.resolution, self.mix, self.frames, asked, variants=self.variants
        )
        validation = PairSet(
            self.seed,
            self.validation_pairs,
            "test",
            self.resolution,
            frames=self.frames if asked.inputs or self.film else 1,
            preparation=exact,
        )
        cache = self.cache
        with nullcontext() if cache is None else owned(cache, "a run that encodes pairs", wait=True):
            process.barrier()  # no process writes before the first one owns the folder
            self._encoded = [encoded_pairs(cache, backbone, pairs, process) for pairs in (train, validation)]
            process.barrier()

    def train_dataloader(self) -> DataLoader:
        """Batches from the trainer's current step on.

        Raises:
            UserError: the trainer has no ``max_steps``.
        """
        trainer: Any = self.trainer
        if trainer.max_steps < 1:
            raise UserError("nano pairs are endless; set trainer.max_steps to the number of optimizer steps")
        repeats = trainer.accumulate_grad_batches
        sampler = StepSampler(
            trainer.max_steps * repeats, trainer.global_step * repeats, trainer.global_rank, trainer.world_size
        )
        batches = PairBatches(self._encoded[0], self.batch_size, self.seed)
        return DataLoader(batches, batch_size=None, sampler=sampler)

    def val_dataloader(self) -> DataLoader:
        """The held-out pairs in order."""
        pairs = self._encoded[1]
        starts = range(0, len(pairs), self.batch_size)
        batches: Any = [pairs.batch(range(start, min(start + self.batch_size, len(pairs)))) for start in starts]
        return DataLoader(batches, batch_size=None)
