"""Aspect-ratio buckets: pictures of like shape share one size (``sizes``), so that they can share a batch."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler

from imvideoedit.data.sizes import Size
from imvideoedit.errors import UserError


class BucketBatchSampler(Sampler[list[int]]):
    """Batches of row indices, every batch from one bucket; each row comes once an epoch.

    The order depends on ``seed`` and the epoch alone. The last batch of a bucket may be smaller. Ranks take turns;
    where the batches do not divide evenly, the epoch's first ones are given out again so that all ranks step alike.

    An iteration starts at the epoch's first batch, or once, after ``load_state_dict``, at the saved one. Without
    ``set_epoch`` every iteration gives the same order.

    Args:
        buckets: the bucket of every row.
        batch_size: rows in a batch.
        seed: of the order.
        shuffle: False keeps the rows' order within a bucket and the buckets' order.
        rank, world_size: which of how many processes this is.
    """

    def __init__(
        self,
        buckets: Sequence[Size],
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} holds no row; give 1 or more")
        self._members: dict[Size, list[int]] = {}
        for index, bucket in enumerate(buckets):
            self._members.setdefault(bucket, []).append(index)
        self._batch_size, self._seed, self._shuffle = batch_size, seed, shuffle
        self._rank, self._world_size = rank, world_size
        self.epoch = 0
        self.position = 0  # where the next iteration starts, in batches
        self._handed_out = 0
        self.sampler = self  # Lightning calls set_epoch on what a batch sampler wraps

    def __len__(self) -> int:
        batches = sum(math.ceil(len(rows) / self._batch_size) for rows in self._members.values())
        return math.ceil(batches / self._world_size)

    def __iter__(self) -> Iterator[list[int]]:
        start, self.position = self.position, 0
        for place, batch in enumerate(self._batches()[start:], start=start):
            self._handed_out = place + 1
            yield batch

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; a place waiting from ``load_state_dict`` is kept if it lies in this epoch."""
        if epoch != self.epoch:
            self.epoch, self.position, self._handed_out = epoch, 0, 0

    def state_dict(self) -> dict[str, int]:
        """The place after the last batch handed out: the epoch and how many batches of it."""
        return {"epoch": self.epoch, "position": self._handed_out}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next iteration start at the place a ``state_dict`` names."""
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
        self._handed_out = self.position

    def _batches(self) -> list[list[int]]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.epoch)
        batches: list[list[int]] = []
        for bucket in sorted(self._members):
            rows = self._members[bucket]
            if self._shuffle:
                rows = [rows[i] for i in torch.randperm(len(rows), generator=generator)]
            batches += [rows[i : i + self._batch_size] for i in range(0, len(rows), self._batch_size)]
        if self._shuffle:
            batches = [batches[i] for i in torch.randperm(len(batches), generator=generator)]
        total = len(self) * self._world_size
        padded = [batches[i % len(batches)] for i in range(total)]
        return padded[self._rank :: self._world_size]
