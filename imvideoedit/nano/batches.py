"""Which pairs are in which batch: a function of the seed and the batch's number, so that resuming is exact."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch.utils.data import Dataset, Sampler

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import EditBatch
from imvideoedit.nano.encoded import EncodedPairs

ENDLESS = 10**9  # steps of a run that the clock ends


@dataclass(frozen=True)
class Clips:
    """Clips in a share of the steps.

    Args:
        kind: ``filmed`` from pairs of stills (see :mod:`imvideoedit.data.film`), ``exact`` pairs, both rendered, or
            ``plain`` scenes, each its own target, with their full description.
        frames: of a clip, 4k + 1, more than 1.
        pairs: number of them.
        batch_size: clips in a batch of each process.
        share: of the steps, in (0, 1].

    Raises:
        UserError: an argument is out of its range.
    """

    frames: int = 17
    pairs: int = 4500
    batch_size: int = 8
    share: float = 0.5
    kind: Literal["filmed", "exact", "plain"] = "filmed"

    def __post_init__(self) -> None:
        if self.kind not in ("filmed", "exact", "plain"):
            raise UserError(f"the data.clips' kind is {self.kind!r}; choose filmed, exact or plain")
        if self.frames < 5 or self.frames % 4 != 1:
            raise UserError(f"the data.clips' frames is {self.frames}; the nano autoencoder takes 4k + 1, from 5 on")
        for name in ("pairs", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"the data.clips' {name} is {getattr(self, name)}; it must be at least 1")
        if not 0 < self.share <= 1:
            raise UserError(f"the data.clips' share is {self.share}; it must be in (0, 1]")


class PairBatches(Dataset):
    """Endless batches of encoded pairs.

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


class MixedBatches(Dataset):
    """Batches of several kinds, drawn by their shares; all batches of an optimizer step are of one kind.

    Of each kind come the batches with the numbers of the steps that drew it, so a pass leaves out pairs at random.

    Args:
        kinds: with their shares of the steps, which add up to 1.
        group: batches of a step, of all processes.
    """

    def __init__(self, kinds: Sequence[tuple[PairBatches, float]], seed: int, group: int) -> None:
        self.kinds, self.seed, self.group = kinds, seed, group

    def kind(self, index: int) -> int:
        """Which kind batch ``index`` is of."""
        if len(self.kinds) == 1:
            return 0
        draw = np.random.default_rng((self.seed, 1, index // self.group)).random()
        ends = np.cumsum([share for _, share in self.kinds])
        return min(int(np.searchsorted(ends, draw, side="right")), len(self.kinds) - 1)

    def __getitem__(self, index: int) -> EditBatch:
        return self.kinds[self.kind(index)][0][index]


class StepSampler(Sampler[int]):
    """Batch indices of one process from step ``start`` on, every ``world``-th one; its length counts all steps."""

    def __init__(self, steps: int, start: int = 0, rank: int = 0, world: int = 1) -> None:
        self.steps, self.start, self.rank, self.world = steps, start, rank, world

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[int]:
        return (step * self.world + self.rank for step in range(self.start, self.steps))
