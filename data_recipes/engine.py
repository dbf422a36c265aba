"""Where shards are made: in this process, in several, or by the actors of a Ray cluster. The work is the same."""

import concurrent.futures
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from data_recipes.stages import Work
from imvideoedit.common.errors import UserError

STARTS = 3  # of a Ray cluster on this machine, until it is given up


@dataclass(frozen=True)
class Local:
    """This machine.

    Args:
        workers: processes; 1 is this one alone.
    """

    workers: int = 1

    def __post_init__(self) -> None:
        _check_workers(self.workers)

    def run(self, work: Work, todo: Sequence[int]) -> Iterator[int]:
        """Make the shards ``todo``; yields each when it is there.

        Raises:
            UserError: of the stage, or a process was killed.
        """
        if self.workers == 1 or len(todo) < 2:
            yield from map(work, todo)
            return
        # Spawned, since a fork of a process with threads may hang.
        context = multiprocessing.get_context("spawn")
        processes = min(self.workers, len(todo))
        with concurrent.futures.ProcessPoolExecutor(processes, context, _keep, (work,)) as pool:
            futures = [pool.submit(_make, index) for index in todo]
            try:
                for future in concurrent.futures.as_completed(futures):
                    yield future.result()
            except BrokenProcessPool as error:
                raise UserError(
                    f"a process of the stage {work.stage.name} died, of too little memory perhaps; "
                    "run again to go on, with fewer engine.workers"
                ) from error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


_kept: list[Work] = []


def _keep(work: Work) -> None:
    _kept[:] = [work]


def _make(index: int) -> int:
    return _kept[0](index)


@dataclass(frozen=True)
class Ray:
    """Actors of Ray Data, on one machine or many that share the recipe's folder.

    A shard whose actor dies is made by another; it appears whole under its own name, so it is never there twice.

    Args:
        workers: actors.
        cpus, gpus: of each actor; shares are allowed.
        address: of a running cluster (``auto`` finds it); None starts one on this machine.
    """

    workers: int = 2
    cpus: float = 1
    gpus: float = 0
    address: str | None = None

    def __post_init__(self) -> None:
        _check_workers(self.workers)

    def run(self, work: Work, todo: Sequence[int]) -> Iterator[int]:
        """As ``Local.run``."""
        if not todo:
            return
        ray = _ray()
        if not ray.is_initialized():
            _start(ray, self.address, self.workers, self.cpus)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.verbose_progress = False
        # One shard a block: a block is what is redone when an actor dies.
        data = ray.data.from_items([{"shard": index} for index in todo], override_num_blocks=len(todo))
        made = data.map(
            _Actor,
            fn_constructor_args=(work,),
            compute=ray.data.ActorPoolStrategy(size=min(self.workers, len(todo))),
            num_cpus=self.cpus,
            num_gpus=self.gpus or None,
        )
        for row in made.iter_rows():
            if row["problem"]:
                raise UserError(row["problem"])
            yield row["shard"]


class _Actor:
    """Keeps a stage, with the models it has loaded, from shard to shard."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"shard": self._work(row["shard"]), "problem": ""}
        except UserError as error:  # told, not raised: Ray would try it again, and bury it in a traceback
            return {"shard": row["shard"], "problem": str(error)}


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError("engine=ray needs Ray; pip install 'imvideoedit[recipes]', or take engine=local") from error
    return ray


def _start(ray: Any, address: str | None, workers: int, cpus: float) -> None:
    quiet = {"logging_level": "error", "log_to_driver": False}
    if address is not None:
        try:
            ray.init(address=address, **quiet)
        except ConnectionError as error:
            raise UserError(f"there is no Ray cluster at {address} ({error}); check engine.address") from error
        return
    # Ray Data reads with CPUs of its own; actors that hold all of them would wait for ever.
    own = int(workers * cpus) + 2
    for attempt in range(STARTS):
        try:
            ray.init(num_cpus=own, include_dashboard=False, **quiet)
            return
        except Exception as error:  # a plain one, where the machine is too busy to start within Ray's half minute
            ray.shutdown()
            if attempt == STARTS - 1:
                raise UserError(f"Ray does not start here ({error}); try again, or engine=local") from error


def _check_workers(workers: int) -> None:
    if workers < 1:
        raise UserError(f"engine.workers is {workers}; it must be at least 1")
