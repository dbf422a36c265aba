"""The data module of image pairs: split, encoded once, batched by size."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import LightningDataModule

from imvideoedit.common.errors import UserError
from imvideoedit.data.buckets import BucketBatchSampler, ResumableLoader
from imvideoedit.data.records import PairRecord, open_records
from imvideoedit.data.shards import ProcessInfo
from imvideoedit.data.sizes import make_buckets, nearest_bucket
from imvideoedit.training.encoding import LatentPairs, encode_dataset


class LatentDataModule(LightningDataModule):
    """Training and validation batches (:class:`EditBatch`) of a data set of image pairs.

    Pairs that the cache lacks are encoded when training begins, by all processes. All batches of an optimizer step
    have one size. Shards by itself: give the Trainer ``use_distributed_sampler=False``.

    Args:
        path: a data set for ``open_records``.
        cache: folder of latents and text embeddings.
        max_area: the most pixels (height x width) of an image.
        pixel_multiple: of both sides; the backbone's ``pixel_multiple``.
        batch_size: pairs in a batch of each process.
        seed: of the order and the validation split.
        num_workers: processes that read the cache.
        val_share: fraction of the rows, chosen by a hash of their ids, for validation; at least one row unless 0.
        epochs: passes over the rows in one epoch of the trainer, whose own count of several is not exact when a run
            is resumed.

    Raises:
        UserError: an argument is out of its range.
    """

    def __init__(
        self,
        path: Path | str,
        cache: Path | str,
        max_area: int,
        pixel_multiple: int,
        batch_size: int,
        seed: int = 0,
        num_workers: int = 0,
        val_share: float = 0.0,
        epochs: int = 1,
    ) -> None:
        super().__init__()
        if not 0 <= val_share < 1:
            raise UserError(f"data.val_share is {val_share}; it must be at least 0 and less than 1")
        for name, value in {"batch_size": batch_size, "epochs": epochs}.items():
            if value < 1:
                raise UserError(f"data.{name} is {value}; it must be at least 1")
        self.path, self.cache, self.seed, self.num_workers = path, cache, seed, num_workers
        self.sizes = make_buckets(max_area, pixel_multiple)
        self.batch_size, self.val_share, self.epochs = batch_size, val_share, epochs
        self.train_pairs: LatentPairs | None = None
        self.val_pairs: LatentPairs | None = None

    def setup(self, stage: str | None = None) -> None:
        """Open, split and encode the data set; further calls change nothing.

        Raises:
            UserError: the data set cannot be opened, a row of it is bad, or no row is left to train on.
        """
        if self.train_pairs is not None:
            return
        records = open_records(self.path)
        held_out = self._validation_rows(records)
        train = [record for row, record in enumerate(records) if row not in held_out]
        if not train:
            raise UserError(f"{self.path} leaves no row to train on; add pairs or lower data.val_share")
        self.train_pairs = self._encode(train)
        self.val_pairs = self._encode([records[row] for row in sorted(held_out)])

    def train_dataloader(self) -> ResumableLoader:
        """Batches in an order that depends on the seed and the epoch."""
        trainer: Any = self.trainer
        group = trainer.accumulate_grad_batches * trainer.world_size
        return self._loader(self.train_pairs, shuffle=True, group=group, epochs=self.epochs)

    def val_dataloader(self) -> ResumableLoader | list:
        """Batches in a fixed order; none if ``val_share`` is 0."""
        return self._loader(self.val_pairs, shuffle=False) if self.val_pairs else []

    def _validation_rows(self, records: Sequence[PairRecord]) -> set[int]:
        if self.val_share == 0:
            return set()
        # By a hash, so that rows added later hardly move others between training and validation.
        keys = [hashlib.sha256(f"{self.seed}:{record.id}".encode()).digest() for record in records]
        ranked = sorted(range(len(keys)), key=lambda row: keys[row])
        return set(ranked[: max(1, round(self.val_share * len(keys)))])

    def _encode(self, records: Sequence[PairRecord]) -> LatentPairs:
        trainer: Any = self.trainer
        buckets = [nearest_bucket(record.size(), self.sizes) for record in records]
        process = ProcessInfo(trainer.global_rank, trainer.world_size, trainer.strategy.barrier)
        backbone, device = trainer.lightning_module.backbone, trainer.strategy.root_device
        return encode_dataset(self.cache, backbone, records, buckets, device, process)

    def _loader(self, pairs: Any, **order: Any) -> ResumableLoader:
        trainer: Any = self.trainer
        processes = {"rank": trainer.global_rank, "world_size": trainer.world_size}
        sampler = BucketBatchSampler(pairs.buckets, self.batch_size, self.seed, **order, **processes)
        return ResumableLoader(pairs, sampler, self.num_workers)
