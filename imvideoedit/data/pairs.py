"""Image pairs as batches of one-frame videos."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from imvideoedit.common.errors import UserError
from imvideoedit.data.buckets import BucketBatchSampler
from imvideoedit.data.records import PairRecord, open_records
from imvideoedit.data.sizes import Size, fit, make_buckets, nearest_bucket

_TEXTS = ("instruction", "source_prompt", "edited_prompt", "task", "id")


class PairDataset(Dataset):
    """Pairs fitted to their buckets.

    An item is a dict of ``source`` and ``target`` (float ``[3, 1, H, W]`` in [-1, 1]) and the texts ``instruction``,
    ``source_prompt``, ``edited_prompt``, ``task`` and ``id``. ``buckets`` holds the size of every item; making the
    data set reads the images' headers for it.

    Args:
        records: all pairs.
        max_area, pixel_multiple: of the buckets, see ``make_buckets``.
        rows: which of the records to use, and in what order; all by default.

    Raises:
        UserError: on making it or taking an item, if a row does not fit the schema, an image cannot be decoded, or
            the images of a pair differ in size; names the row.
    """

    def __init__(
        self, records: Sequence[PairRecord], max_area: int, pixel_multiple: int, rows: Sequence[int] | None = None
    ) -> None:
        self._records = records
        self._rows = list(range(len(records)) if rows is None else rows)
        sizes = make_buckets(max_area, pixel_multiple)
        self.buckets: list[Size] = [nearest_bucket(records[row].size(), sizes) for row in self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._records[self._rows[index]]
        source, target = (_to_tensor(fit(image, self.buckets[index])) for image in record.load())
        return {"source": source, "target": target, **{key: getattr(record, key) for key in _TEXTS}}

    @staticmethod
    def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
        """Stack the tensors to ``[B, 3, 1, H, W]`` and list the texts."""
        return {
            key: torch.stack([i[key] for i in items]) if isinstance(first, Tensor) else [i[key] for i in items]
            for key, first in items[0].items()
        }


class PairLoader(DataLoader):
    """A loader that knows how many batches its user has got, so that training resumes within an epoch.

    Workers read ahead, which is why the sampler's own place would be wrong. Lightning saves and restores the state.
    """

    def __init__(self, dataset: Any, sampler: BucketBatchSampler, num_workers: int) -> None:
        super().__init__(
            dataset,
            batch_sampler=sampler,
            collate_fn=dataset.collate,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
        self._order = sampler
        self._handed_out = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self._handed_out = self._order.position
        for batch in super().__iter__():
            self._handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The place after the last batch handed out."""
        return self._order.place(self._handed_out)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next iteration start at the place a ``state_dict`` names."""
        self._order.load_state_dict(state)
        self._handed_out = self._order.position


class PairDataModule(LightningDataModule):
    """Training and validation batches of one data set of pairs.

    Under several processes it shards by itself: give the Trainer ``use_distributed_sampler=False``.

    Args:
        path: a data set for ``open_records``.
        max_area: the most pixels (height x width) of a picture.
        pixel_multiple: what both sides are multiples of; the backbone's ``pixel_multiple``.
        batch_size: pairs in a batch of each process.
        seed: of the order and the validation share.
        num_workers: processes that decode images.
        val_share: share of the rows, chosen by a hash of their ids, that is kept for validation; at least one row
            unless 0.
        epochs: passes over the rows that the training loader holds, to the trainer a single epoch: its own count of
            several is not exact across interruptions.
    """

    def __init__(
        self,
        path: Path | str,
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
            raise UserError(f"val_share={val_share} must be at least 0 and less than 1")
        if epochs < 1:
            raise UserError(f"data.epochs is {epochs}; it must be at least 1")
        self._epochs = epochs
        self._path, self._max_area, self._pixel_multiple = path, max_area, pixel_multiple
        self._batch_size, self._seed, self._num_workers = batch_size, seed, num_workers
        self._val_share = val_share
        self.train_pairs: Any = None
        self.val_pairs: Any = None

    def setup(self, stage: str | None = None) -> None:
        """Open the data set and split it; further calls change nothing.

        Raises:
            UserError: the data set cannot be opened, a row of it is bad, or it leaves nothing to train on.
        """
        if self.train_pairs is not None:
            return
        records = open_records(self._path)
        val_rows = self._validation_rows(records)
        train = [row for row in range(len(records)) if row not in val_rows]
        if not train:
            raise UserError(f"{self._path} leaves no row to train on; add pairs or lower val_share={self._val_share}")
        self.train_pairs, self.val_pairs = (self._pairs(records, rows) for rows in (train, sorted(val_rows)))

    def train_dataloader(self) -> PairLoader:
        """Batches in an order that changes with the epoch."""
        assert self.train_pairs is not None, "setup comes first"
        return self._loader(self.train_pairs, shuffle=True)

    def val_dataloader(self) -> PairLoader | list:
        """Batches in a fixed order; none if ``val_share`` is 0."""
        assert self.val_pairs is not None, "setup comes first"
        return self._loader(self.val_pairs, shuffle=False) if len(self.val_pairs) else []

    def _validation_rows(self, records: Sequence[PairRecord]) -> set[int]:
        if self._val_share == 0:
            return set()
        # By a hash, so that rows added later hardly move the others between the shares.
        keys = [hashlib.sha256(f"{self._seed}:{record.id}".encode()).digest() for record in records]
        ranked = sorted(range(len(keys)), key=lambda row: keys[row])
        return set(ranked[: max(1, round(self._val_share * len(keys)))])

    def _pairs(self, records: Sequence[PairRecord], rows: list[int]) -> Any:
        return PairDataset(records, self._max_area, self._pixel_multiple, rows)

    def _loader(self, pairs: Any, shuffle: bool) -> PairLoader:
        rank, world_size, group = 0, 1, 1
        if self.trainer:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
            group = self.trainer.accumulate_grad_batches * world_size if shuffle else 1
        epochs = self._epochs if shuffle else 1
        order = pairs.buckets, self._batch_size, self._seed, shuffle, rank, world_size, group, epochs
        sampler = BucketBatchSampler(*order)
        return PairLoader(pairs, sampler, self._num_workers)


def _to_tensor(image_HWC: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(image_HWC)).permute(2, 0, 1).unsqueeze(1).float() / 127.5 - 1
