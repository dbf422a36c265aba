"""Aspect-ratio buckets: pictures of like shape share one size (``sizes``), so that they can share a batch."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler

from imvideoedit.common.errors import UserError
from imvideoedit.data.sizes import Size


class BucketBatchSampler(Sampler[list[int]]):
    """Batches of row indices, every batch from one bucket; each row comes once an epoch.

    The order depends on ``seed`` and the epoch alone. The last batch of a bucket may be smaller. Ranks take turns;
    where the batches do not divide evenly, the epoch's first ones are given out again so that all ranks step alike.

    With a ``group`` above 1, that many batches on end are whole and of one bucket: an optimizer step's, so that all
    ranks have one shape at any time and every rank count sees the same steps. A bucket's last group is filled up
    with rows of that bucket that come again.

    An iteration starts at the epoch's first batch, or once, after ``load_state_dict``, at the saved one. Without
    ``set_epoch`` every iteration gives the same order.

    Args:
        buckets: the bucket of every row.
        batch_size: rows in a batch.
        seed: of the order.
        shuffle: False keeps the rows' order within a bucket and the buckets' order.
        rank, world_size: which of how many processes this is.
        group: batches of all processes in an optimizer step; a multiple of ``world_size``, or 1.
        epochs: how many an iteration takes in on end.
    """

    def __init__(
        self,
        buckets: Sequence[Size],
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        group: int = 1,
        epochs: int = 1,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} holds no row; give 1 or more")
        self._members: dict[Size, list[int]] = {}
        for index, bucket in enumerate(buckets):
            self._members.setdefault(bucket, []).append(index)
        self._batch_size, self._seed, self._shuffle = batch_size, seed, shuffle
        self._rank, self._world_size, self._group, self._epochs = rank, world_size, group, epochs
        self.epoch = 0
        self.position = 0  # where the next iteration starts, in batches
        self._handed_out = 0
        self.sampler = self  # Lightning calls set_epoch on what a batch sampler wraps

    def __len__(self) -> int:
        return self._epochs * self._each()

    def _each(self) -> int:
        """Batches of this process in an epoch."""
        unit = self._batch_size * self._group
        batches = self._group * sum(math.ceil(len(rows) / unit) for rows in self._members.values())
        return math.ceil(batches / self._world_size)

    def __iter__(self) -> Iterator[list[int]]:
        start, self.position = self.position, 0
        each = self._each()
        for epoch in range(start // each, self._epochs):
            batches, first = self._batches(self.epoch + epoch), epoch * each
            for place in range(max(start, first), first + each):
                self._handed_out = place + 1
                yield batches[place - first]

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; a place waiting from ``load_state_dict`` is kept if it lies in this epoch."""
        if epoch != self.epoch:
            self.epoch, self.position, self._handed_out = epoch, 0, 0

    def state_dict(self) -> dict[str, int]:
        """The place after the last batch handed out: the epoch and how many batches of it, those of all processes."""
        return self.place(self._handed_out)

    def place(self, batches: int) -> dict[str, int]:
        """The state of having handed out that many batches of the epoch to this process."""
        return {"epoch": self.epoch, "position": batches * self._world_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next iteration start at the place a ``state_dict`` names."""
        self.epoch, self.position = int(state["epoch"]), int(state["position"]) // self._world_size
        self._handed_out = self.position

    def _batches(self, epoch: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        steps: list[list[list[int]]] = []
        for bucket in sorted(self._members):
            rows = self._members[bucket]
            if self._shuffle:
                rows = [rows[i] for i in torch.randperm(len(rows), generator=generator)]
            if self._group > 1:
                unit = self._batch_size * self._group
                rows = [rows[i % len(rows)] for i in range(math.ceil(len(rows) / unit) * unit)]
            batches = [rows[i : i + self._batch_size] for i in range(0, len(rows), self._batch_size)]
            steps += [batches[i : i + self._group] for i in range(0, len(batches), self._group)]
        if self._shuffle:
            steps = [steps[i] for i in torch.randperm(len(steps), generator=generator)]
        order = [batch for step in steps for batch in step]
        total = self._each() * self._world_size
        padded = [order[i % len(order)] for i in range(total)]
        return padded[self._rank :: self._world_size]
