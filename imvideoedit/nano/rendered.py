"""Many things of the nano world, rendered ahead by all cores."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset

T = TypeVar("T")
MANY = 1024  # things from which on processes that render are worth their start
PART = 32  # things that a process renders at a time


class _Parts(Dataset):
    """Things in parts, as the processes that render them take them."""

    def __init__(self, render: Callable[[Any], Any], parts: Sequence[Sequence[Any]]) -> None:
        self.render, self.parts = render, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> list[Any]:
        return [self.render(place) for place in self.parts[number]]


def rendered(render: Callable[[Any], T], chunks: Sequence[Sequence[Any]], processes: int = 1) -> Iterator[list[T]]:
    """What ``render`` makes of the places of each chunk in turn; many are rendered ahead, on all cores.

    Args:
        processes: that share this machine's cores.
    """
    parts = [chunk[at : at + PART] for chunk in chunks for at in range(0, len(chunk), PART)]
    few = sum(map(len, chunks)) < MANY or multiprocessing.current_process().daemon
    workers = 0 if few else len(os.sched_getaffinity(0)) // processes
    loader = DataLoader(_Parts(render, parts), batch_size=None, num_workers=workers, collate_fn=_as_it_is)
    ready = iter(loader)
    for chunk in chunks:
        yield [example for _ in range(0, len(chunk), PART) for example in next(ready)]


def _as_it_is(examples: list[Any]) -> list[Any]:
    return examples
