"""Processes that do one thing together: messages from the first to the others, and one word of what goes wrong."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from imvideoedit.common.errors import UserError, one_line
from imvideoedit.common.machine import is_out_of_memory

IDLE = timedelta(days=7)  # that the others may wait while the first one reads or writes a long video
FAILURE = "failure"  # key of the store: of the first failure, the process, whether that has told it, and the text
GONE = "another process of this edit was ended, perhaps for want of memory; the launcher says which"
Made = TypeVar("Made")


class Processes:
    """The processes that a launcher started, once they have found each other; every one makes such an object.

    Args:
        device: of this one.
        loud: the standard error of this process, for what the first one cannot tell of it.
        remedy: where memory runs out.

    Attributes:
        rank: of this one; 0 is the first.
        count: of all.

    Raises:
        UserError: they do not find each other.
    """

    def __init__(self, device: torch.device, loud: Any, remedy: str) -> None:
        self.device, self._loud, self._remedy = device, loud, remedy
        gpu = device.type == "cuda"
        if gpu:
            torch.cuda.set_device(device)
        try:
            self._store, self.rank, self.count = next(dist.rendezvous("env://"))
            # Numbers of tokens travel by the CPU, so that no pass waits for the GPU to tell them.
            backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
            dist.init_process_group(backend, store=self._store, rank=self.rank, world_size=self.count)
            self._control = dist.new_group(backend="gloo", timeout=IDLE)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"the processes do not find each other: {one_line(error)}; start them by torchrun"
            ) from error

    def every(self, make: Callable[[], Made]) -> Made:
        """What ``make`` gives in this process, once it has given something in every process.

        Raises:
            Exception: in the first process: what ``make`` raised there, or a ``UserError`` of another one's.
            SystemExit: in another process, where ``make`` failed in any.
        """
        made: list[Made] = []
        failure: Exception | None = None
        try:
            made.append(make())
        except Exception as error:
            failure = error
        told: list[str | None] = [None] * self.count
        with self._alive():
            dist.all_gather_object(told, failure and one_line(failure), group=self._control)
        if self.rank and any(told):
            raise SystemExit(2) from failure
        if failure is not None:
            raise failure
        for rank, text in enumerate(told):
            if text is not None:
                raise UserError(f"process {rank} of {self.count}: {text}")
        return made[0]

    def send(self, message: Any) -> None:
        """From the first process to all others, which receive it."""
        with self._alive():
            dist.broadcast_object_list([message], 0, group=self._control)

    def receive(self) -> Any:
        """What the first process sends."""
        message: list[Any] = [None]
        with self._alive():
            dist.broadcast_object_list(message, 0, group=self._control)
        return message[0]

    def leave(self) -> None:
        """At the end, where nothing went wrong."""
        dist.destroy_process_group()

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        """Around messages, which only fail where a process is gone."""
        try:
            yield
        except RuntimeError as error:
            if self.rank:  # the first one has told why it went
                raise SystemExit(2) from error
            raise UserError(GONE) from error

    @contextlib.contextmanager
    def one_failure(self) -> Iterator[None]:
        """Around what all do together: what goes wrong in one process breaks that off in the others.

        It is told once: by the first process, or, as that may be held up, by the one in which it went wrong, unless it
        is of those errors that all find at once.

        Raises:
            UserError: in the first process, which tells it.
            SystemExit: where another tells it.
        """
        try:
            yield
        except Exception as error:
            own = f"{self.rank}\n{int(self.rank > 0 and not isinstance(error, UserError))}\n{self._described(error)}"
            rank, told, text = self._first_failure(own).split("\n", 2)
            if told == "1" and int(rank) == self.rank:
                print(f"error: {text}", file=self._loud, flush=True)
            if told == "1" or self.rank:
                raise SystemExit(2) from error
            if rank != "0" or is_out_of_memory(error) or _is_broken(error):
                raise UserError(text) from error
            raise

    def _described(self, error: Exception) -> str:
        if isinstance(error, UserError):
            return one_line(error)
        here = f"process {self.rank} of {self.count}"
        if is_out_of_memory(error):
            return f"{here}: the edit does not fit into memory; {self._remedy}"
        return GONE if _is_broken(error) else f"{here}: {one_line(error)}"

    def _first_failure(self, own: str) -> str:
        """The entry of the process that failed first; this one's ``own`` if it is the first."""
        try:
            return self._store.compare_set(FAILURE, "", own).decode()
        except RuntimeError:  # the store is gone with the first process, which has told why
            return own if self.rank == 0 else "0\n0\n"


def _is_broken(error: Exception) -> bool:
    """Whether what was done together failed since another process is gone."""
    lost = any(words in str(error) for words in ("closed by peer", "reset by peer", "Broken pipe"))  # gloo's own words
    return lost or isinstance(error, dist.DistBackendError | dist.DistNetworkError)
