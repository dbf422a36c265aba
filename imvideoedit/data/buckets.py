"""Aspect-ratio buckets: pictures of like shape share one size, so that they can share a batch."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Sampler

from imvideoedit.errors import UserError

Size = tuple[int, int]
"""(height, width) in pixels."""

MAX_ASPECT = 3.0


def make_buckets(max_area: int, multiple: int) -> list[Size]:
    """All sizes worth having, sorted by height: sides are multiples, the area is at most ``max_area``.

    A size is kept if neither side can grow within the area and its aspect lies within 1:3 and 3:1. Where that
    leaves none (an area of a few multiples), the largest square is the only bucket.

    Raises:
        UserError: not even one ``multiple`` x ``multiple`` picture fits.
    """
    cells = max_area // (multiple * multiple)
    if cells < 1:
        raise UserError(f"max_area={max_area} is less than {multiple}x{multiple} pixels; raise it")
    shapes = [(rows, cells // rows) for rows in range(1, cells + 1)]
    maximal = [(rows, columns) for rows, columns in shapes if cells // columns == rows]
    kept = [s for s in maximal if max(s) <= MAX_ASPECT * min(s)]
    side = math.isqrt(cells)
    return [(rows * multiple, columns * multiple) for rows, columns in kept or [(side, side)]]


def nearest_bucket(size: Size, buckets: Sequence[Size]) -> Size:
    """The bucket whose aspect ratio is nearest to that of ``size`` on a log scale; of equals the larger one."""
    wanted = math.log(size[1] / size[0])
    return min(buckets, key=lambda b: (abs(math.log(b[1] / b[0]) - wanted), -b[0] * b[1], b))


def fit(image_HWC: np.ndarray, size: Size) -> np.ndarray:
    """Scale an image so that it covers ``size`` and crop the centre: uint8 ``[h, w, 3]``.

    It depends on the two sizes alone, so images of one size stay in register.
    """
    height, width = image_HWC.shape[:2]
    if (height, width) == size:
        return image_HWC
    scale = max(size[0] / height, size[1] / width)
    crop_height, crop_width = size[0] / scale, size[1] / scale
    left, top = (width - crop_width) / 2, (height - crop_height) / 2
    box = (max(0.0, left), max(0.0, top), min(width, left + crop_width), min(height, top + crop_height))
    return np.asarray(Image.fromarray(image_HWC).resize((size[1], size[0]), Image.Resampling.LANCZOS, box=box))


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
