"""Checkpoints of a run's state: verified by checksums, the last few kept, a damaged one passed over.

A checkpoint ``step-<N>.ckpt`` (a file, or a folder where a strategy shards its state) is complete once the checksum
file ``step-<N>.json`` next to it lists its files.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import xxhash
from lightning import LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing, sync
from imvideoedit.common.json_file import read_checked, write_checked
from imvideoedit.training.loggers import KeptCSVLogger
from imvideoedit.training.randomness import random_states, restore_random_states
from imvideoedit.training.stopping import StopRequest, TrainingStopped


class Checkpoints(Checkpoint):
    """Saves every N optimizer steps, at the end, and on SIGTERM.

    Args:
        folder: of the checkpoints.
        every_n_steps: optimizer steps between checkpoints, at least 1.
        keep: how many of the latest stay.

    Raises:
        UserError: a number is below 1; while training, a checkpoint cannot be written.
        TrainingStopped: while training, after SIGTERM.
    """

    def __init__(self, folder: Path | str, every_n_steps: int, keep: int = 3) -> None:
        if every_n_steps < 1 or keep < 1:
            raise UserError(f"need every_n_steps and keep of at least 1; got {every_n_steps} and {keep}")
        self.folder, self.every_n_steps, self.keep = Path(folder), every_n_steps, keep
        self.stop = StopRequest()
        self._step = self._saved = -1
        self._stopping = False
        self._random: list[dict[str, Any]] = []
        self._row: dict[str, Any] = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["random"] = random_states()
        checkpoint["row"] = _row(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._random, self._row = checkpoint["random"], checkpoint.get("row", {})
        progress = checkpoint["loops"]["fit_loop"]
        batches, epochs = progress["epoch_loop.batch_progress"], progress["epoch_progress"]
        # Lightning counts the batches of one process; with another number of them the epoch would end early or late.
        for counts in (batches["total"], batches["current"]):
            before = counts["ready"]
            now = before * len(self._random) // trainer.world_size
            counts.update({name: now - (before - count) for name, count in counts.items()})
        # A run that reached its last step counts its epoch as done, so more steps would not continue that epoch.
        if not batches["is_last_batch"]:
            for counts in (epochs["total"], epochs["current"]):
                counts["processed"] = counts["completed"] = counts["ready"] - 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stop.training = True
        restore_random_states(self._random)
        self._step = trainer.global_step
        self._saved = trainer.global_step if trainer.ckpt_path else -1
        for logger in trainer.loggers:
            if isinstance(logger, KeptCSVLogger):
                logger.begin(trainer.global_step, self._row)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._stopping:  # not before the row of the step is logged, and the validation that is due
            raise TrainingStopped(self._step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == self._step:  # within an accumulation
            return
        self._step = trainer.global_step
        self._stopping = trainer.strategy.reduce_boolean_decision(self.stop.received, all=False)
        if self._stopping or self._step % self.every_n_steps == 0:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._saved != trainer.global_step:
            self._save(trainer)

    def newest(self) -> Path | None:
        """The newest complete checkpoint."""
        return next((path.with_suffix(".ckpt") for path in _checksum_files(self.folder)), None)

    def _save(self, trainer: Trainer) -> None:
        step = trainer.global_step
        final = self.folder / f"step-{step:08d}.ckpt"
        partial = self.folder / f".{final.name}.partial"
        try:
            if trainer.is_global_zero:
                self.folder.mkdir(parents=True, exist_ok=True)
                _remove(partial)
            trainer.strategy.barrier()
            trainer.save_checkpoint(partial, weights_only=False)
            trainer.strategy.barrier()
            if trainer.is_global_zero:
                kind = type(trainer.strategy).__name__
                _complete(partial, final, {"step": step, "strategy": kind, "processes": trainer.world_size})
                for old in _checksum_files(self.folder)[self.keep :]:
                    discard(old)
            trainer.strategy.barrier()
        except OSError as error:
            raise self._not_written(step, error) from error
        finally:
            _remove(partial)
        self._saved = step

    def _not_written(self, step: int, error: OSError) -> UserError:
        free = shutil.disk_usage(self.folder).free
        complete = _checksum_files(self.folder)
        facts = _facts(complete[0]) if complete else None
        start = f"resumes from step {facts['step']}" if facts else "starts again"
        return UserError(
            f"the checkpoint of step {step} cannot be written to {self.folder} ({free / 2**30:.1f} GiB free): "
            f"{str(error).splitlines()[0]}; free some space and run the same command again, which {start}"
        )


def _row(trainer: Trainer) -> dict[str, Any]:
    """What is to be logged of the current step: after its checkpoint, and a run that goes on from that skips it."""
    connector = trainer._logger_connector
    if trainer._results is None or not connector.should_update_logs:
        return {}
    return {"epoch": trainer.current_epoch, **{name: float(value) for name, value in connector.metrics["log"].items()}}


def latest(folder: Path | str) -> tuple[Path, dict[str, Any]] | None:
    """The newest undamaged checkpoint and the contents of its checksum file; prints a warning for damaged ones."""
    for path in _checksum_files(Path(folder)):
        checkpoint = path.with_suffix(".ckpt")
        try:
            facts = _facts(path)
            if facts is not None and _checksums(checkpoint) == facts["files"]:
                return checkpoint, facts
        except OSError:
            pass
        print(f"warning: checkpoint {checkpoint} is damaged; using the one before", flush=True)
    return None


def check_processes(trainer: Trainer, path: Path, facts: dict[str, Any]) -> None:
    """Refuse a checkpoint whose state cannot be sharded as this trainer needs it.

    Raises:
        UserError: it is from another strategy, or with ZeRO-2 from another number of processes.
    """
    before, now = facts["strategy"], type(trainer.strategy).__name__
    alike = {"SingleDeviceStrategy": "DDPStrategy"}
    if alike.get(before, before) != alike.get(now, now):
        raise UserError(
            f"{path} was written with {before}, but this run has {now}; give the same trainer=… as before, "
            "or begin another run with task.start=ADAPTER"
        )
    if now == "Zero2" and facts["processes"] != trainer.world_size:
        raise UserError(
            f"{path} is sharded for {facts['processes']} processes by ZeRO-2, not {trainer.world_size}; "
            f"give {facts['processes']} again, or begin another run with task.start=ADAPTER"
        )


def discard(checksum_file: Path) -> None:
    """Remove a checkpoint, its checksum file first."""
    checksum_file.unlink(missing_ok=True)
    _remove(checksum_file.with_suffix(".ckpt"))


def _checksum_files(folder: Path) -> list[Path]:
    """Newest first."""
    return sorted(folder.glob("step-*.json"), reverse=True)


def _facts(checksum_file: Path) -> dict[str, Any] | None:
    """The contents of a checksum file; None where it is damaged."""
    try:
        facts = read_checked(checksum_file)
    except UserError:
        return None
    match facts:
        case {"files": dict(), "step": int(), "strategy": str(), "processes": int()}:
            return facts
    return None


def _complete(partial: Path, final: Path, facts: dict[str, Any]) -> None:
    """Move a checkpoint to its final place and write its checksum file."""
    checksum_file = final.with_suffix(".json")
    discard(checksum_file)
    files = _checksums(partial)
    if partial.is_dir():  # a file was synced when it was written
        sync(partial)
    os.replace(partial, final)
    write_checked(checksum_file, {**facts, "files": files})


def _checksums(path: Path) -> dict[str, str]:
    """Checksum of a file under the name "", or of each file of a folder."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return {str(file.relative_to(path)) if path.is_dir() else "": _checksum(file) for file in files}


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file and renames it, so that a crash leaves the previous one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with replacing(path) as temporary, temporary.open("wb") as file, write_errors():
            torch.save(checkpoint, file)


@contextlib.contextmanager
def write_errors() -> Iterator[None]:
    """Turn the RuntimeError of a ``torch.save`` that cannot write into an ``OSError``.

    torch's zip writer has no type of its own for it; errors of devices and of communication are subclasses, and pass.
    """
    try:
        yield
    except RuntimeError as error:
        if type(error) is not RuntimeError:
            raise
        raise OSError(str(error)) from error
