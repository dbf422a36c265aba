"""Batches by bucket: rows of similar shape share one length, size and set of inputs, so that they can be stacked."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from imvideoedit.common.errors import UserError


class BucketBatchSampler(Sampler[list[int]]):
    """Batches of row indices, every batch from one bucket; each row comes once an epoch.

    The order depends on ``seed`` and the epoch alone. The last batch of a bucket may be smaller. Ranks take turns;
    where the batches do not divide evenly, the epoch's first ones are repeated so that all ranks have equally many.

    With a ``group`` above 1, that many consecutive batches are full and of one bucket: those of an optimizer step, so
    that all ranks compute on one shape, and the steps do not depend on the number of ranks. A bucket's last group is
    filled up by repeating rows of that bucket.

    An iteration starts at the epoch's first batch, or, once after ``load_state_dict``, at the saved one. Without
    ``set_epoch`` every iteration has the same order.

    Args:
        buckets: the bucket of every row.
        batch_size: rows in a batch.
        seed: of the order.
        shuffle: False keeps the rows' order within a bucket and the buckets' order.
        rank, world_size: which of how many processes this is.
        group: batches of all processes in an optimizer step; a multiple of ``world_size``, or 1.
        epochs: consecutive epochs of one iteration.
        shares: of the steps, by the buckets' first entry, adding up to 1: rows of a kind are left out or repeated, so
            that an epoch has them in these shares.
        sizes: batch sizes by the buckets' first entry, in place of ``batch_size``.
        epochs_apart: give index + e * rows for a row in epoch e, for data that differ between epochs.
    """

    def __init__(
        self,
        buckets: Sequence[tuple[Any, ...]],
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        group: int = 1,
        epochs: int = 1,
        epochs_apart: bool = False,
        shares: Mapping[str, float] | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be at least 1")
        self._members: dict[tuple[Any, ...], list[int]] = {}
        for index, bucket in enumerate(buckets):
            self._members.setdefault(bucket, []).append(index)
        self._batch_size, self._seed, self._shuffle = batch_size, seed, shuffle
        self._rank, self._world_size, self._group, self._epochs = rank, world_size, group, epochs
        self._apart = len(buckets) if epochs_apart else 0
        self._shares, self._sizes = shares, sizes or {}
        self.epoch = 0
        self.position = 0  # of the next iteration's first batch
        self.sampler = self  # Lightning calls set_epoch on what a batch sampler wraps

    def __len__(self) -> int:
        return self._epochs * self._per_epoch()

    def _per_epoch(self) -> int:
        """Batches of this process in one epoch."""
        counts: dict[Any, int] = {}
        for bucket, rows in self._members.items():
            kind = bucket[0]
            counts[kind] = counts.get(kind, 0) + math.ceil(len(rows) / (self._size(bucket) * self._group))
        return math.ceil(self._group * sum(self._wanted(counts).values()) / self._world_size)

    def _size(self, bucket: tuple[Any, ...]) -> int:
        return self._sizes.get(bucket[0], self._batch_size)

    def _wanted(self, counts: dict[Any, int]) -> dict[Any, int]:
        """Steps of each kind in an epoch, of those that its rows make."""
        if self._shares is None:
            return counts
        shares = {kind: share for kind, share in self._shares.items() if share}
        total = sum(counts[kind] for kind in shares)
        return {kind: max(1, round(share * total)) for kind, share in shares.items()}

    def __iter__(self) -> Iterator[list[int]]:
        start, self.position = self.position, 0
        per_epoch = self._per_epoch()
        for epoch in range(start // per_epoch, self._epochs):
            batches, first = self._batches(self.epoch + epoch), epoch * per_epoch
            added = (self.epoch + epoch) * self._apart
            for batch in batches[max(start - first, 0) :]:
                yield [row + added for row in batch]

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; a position from ``load_state_dict`` is kept if it is in this epoch."""
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0

    def state_after(self, batches: int) -> dict[str, int]:
        """The position after so many batches on this process: the epoch and the number of batches on all processes."""
        return {"epoch": self.epoch, "position": batches * self._world_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Start the next iteration at a saved position."""
        self.epoch, self.position = int(state["epoch"]), int(state["position"]) // self._world_size

    def _batches(self, epoch: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        of_kind: dict[Any, list[list[list[int]]]] = {}
        for bucket in sorted(self._members):
            rows = self._members[bucket]
            if self._shuffle:
                rows = [rows[i] for i in torch.randperm(len(rows), generator=generator)]
            size = self._size(bucket)
            if self._group > 1:
                unit = size * self._group
                rows = [rows[i % len(rows)] for i in range(math.ceil(len(rows) / unit) * unit)]
            batches = [rows[i : i + size] for i in range(0, len(rows), size)]
            own = of_kind.setdefault(bucket[0], [])
            own += [batches[i : i + self._group] for i in range(0, len(batches), self._group)]
        steps = self._apportioned(of_kind, generator)
        if self._shuffle:
            steps = [steps[i] for i in torch.randperm(len(steps), generator=generator)]
        order = [batch for step in steps for batch in step]
        total = self._per_epoch() * self._world_size
        padded = [order[i % len(order)] for i in range(total)]
        return padded[self._rank :: self._world_size]

    def _apportioned(
        self, of_kind: dict[Any, list[list[list[int]]]], generator: torch.Generator
    ) -> list[list[list[int]]]:
        """The steps of all kinds, each kind's as often as its share wants; left out are others in each epoch."""
        if self._shares is None:
            return [step for steps in of_kind.values() for step in steps]
        chosen = []
        for kind, count in self._wanted({kind: len(steps) for kind, steps in of_kind.items()}).items():
            order = torch.randperm(len(of_kind[kind]), generator=generator).tolist()
            chosen += [of_kind[kind][order[place % len(order)]] for place in range(count)]
        return chosen


class ResumableLoader(DataLoader):
    """Counts the batches that it has returned, so that training resumes within an epoch.

    The sampler's own position would be wrong, as workers read ahead. Lightning saves and restores the state.
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
        self._returned = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self._returned = self._order.position
        for batch in super().__iter__():
            self._returned += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The position after the last batch returned."""
        return self._order.state_after(self._returned)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Start the next iteration at a saved position."""
        self._order.load_state_dict(state)
        self._returned = self._order.position
