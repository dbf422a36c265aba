"""Independent pieces of work, as many at a time as there are cores.

Small networks and numpy use one core well and several badly: a piece keeps to one core, and the result of a piece does
not depend on how many there are.
"""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def on_all_cores(work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    """``work`` of each item, in the items' order, by as many threads as torch may use (``OMP_NUM_THREADS``).

    Closed before its end (``contextlib.closing``), it leaves out the items that have not begun.

    Raises:
        Exception: what ``work`` raises for an item, in its place; items that have not begun are then left out.
    """
    cores = torch.get_num_threads()
    torch.set_num_threads(1)  # new threads start with this
    pool = ThreadPoolExecutor(cores)
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)
