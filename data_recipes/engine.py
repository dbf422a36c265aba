"""Where shards are made: in this process, in several, or by the actors of a Ray cluster; with equal results."""

import concurrent.futures
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from data_recipes.stages import StageRun
from imvideoedit.common.errors import UserError

STARTS = 3  # attempts to start Ray on this machine


@dataclass(frozen=True)
class Local:
    """This machine.

    Args:
        workers: processes; with 1, this one alone.
    """

    workers: int = 1

    def __post_init__(self) -> None:
        _check_workers(self.workers)

    def run(self, run: StageRun, missing: Sequence[int]) -> Iterator[int]:
        """Make the missing shards; yields the index of each when it is done.

        Raises:
            UserError: from the stage, or a process was killed.
        """
        if self.workers == 1 or len(missing) < 2:
            yield from map(run, missing)
            return
        # Spawned, since a fork of a process with threads may hang.
        context = multiprocessing.get_context("spawn")
        processes = min(self.workers, len(missing))
        with concurrent.futures.ProcessPoolExecutor(processes, context, _set_run, (run,)) as pool:
            futures = [pool.submit(_make, index) for index in missing]
            try:
                for future in concurrent.futures.as_completed(futures):
                    yield future.result()
            except BrokenProcessPool as error:
                raise UserError(
                    f"a process of the stage {run.stage.name} died, perhaps out of memory; "
                    "run again to resume, with fewer engine.workers"
                ) from error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


_run: list[StageRun] = []  # of a worker process, which keeps the models that the stage has loaded


def _set_run(run: StageRun) -> None:
    _run[:] = [run]


def _make(index: int) -> int:
    return _run[0](index)


@dataclass(frozen=True)
class Ray:
    """Actors of Ray Data, on one machine or many that share the recipe's folder.

    A shard whose actor dies is made by another; its file is complete or absent, so no row appears twice.

    Args:
        workers: actors.
        cpus, gpus: of each actor; fractions are allowed.
        address: of a running cluster, or ``auto``; None starts one on this machine.
    """

    workers: int = 2
    cpus: float = 1
    gpus: float = 0
    address: str | None = None

    def __post_init__(self) -> None:
        _check_workers(self.workers)

    def run(self, run: StageRun, missing: Sequence[int]) -> Iterator[int]:
        """As ``Local.run``."""
        if not missing:
            return
        ray = _ray()
        if not ray.is_initialized():
            _start(ray, self.address, self.workers, self.cpus)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.verbose_progress = False
        # One shard a block, since Ray repeats the blocks of an actor that dies.
        data = ray.data.from_items([{"shard": index} for index in missing], override_num_blocks=len(missing))
        made = data.map(
            _Actor,
            fn_constructor_args=(run,),
            compute=ray.data.ActorPoolStrategy(size=min(self.workers, len(missing))),
            num_cpus=self.cpus,
            num_gpus=self.gpus or None,
        )
        for row in made.iter_rows():
            if row["problem"]:
                raise UserError(row["problem"])
            yield row["shard"]


class _Actor:
    """Holds a stage, with the models it has loaded."""

    def __init__(self, run: StageRun) -> None:
        self._run = run

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"shard": self._run(row["shard"]), "problem": ""}
        except UserError as error:  # returned, as Ray would retry it and show a traceback
            return {"shard": row["shard"], "problem": str(error)}


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError("engine=ray needs Ray; pip install 'imvideoedit[recipes]', or use engine=local") from error
    return ray


def _start(ray: Any, address: str | None, workers: int, cpus: float) -> None:
    quiet = {"logging_level": "error", "log_to_driver": False}
    if address is not None:
        try:
            ray.init(address=address, **quiet)
        except ConnectionError as error:
            raise UserError(f"there is no Ray cluster at {address} ({error}); check engine.address") from error
        return
    # Ray Data reads with further CPUs; without any it would wait forever.
    total = int(workers * cpus) + 2
    for attempt in range(STARTS):
        try:
            ray.init(num_cpus=total, include_dashboard=False, **quiet)
            return
        except Exception as error:  # Ray raises a plain one if a busy machine does not start it within 30 s
            ray.shutdown()
            if attempt == STARTS - 1:
                raise UserError(f"Ray does not start ({error}); try again, or use engine=local") from error


def _check_workers(workers: int) -> None:
    if workers < 1:
        raise UserError(f"engine.workers is {workers}; it must be at least 1")
