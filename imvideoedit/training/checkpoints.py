"""Checkpoints that are whole: sealed with checksums, the last few kept, a damaged one passed over.

A checkpoint ``step-<N>.ckpt`` (a file, or a folder where a strategy shares its state out) counts once
``step-<N>.json`` beside it names its files and their checksums.
"""

import json
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
from imvideoedit.common.files import replacing
from imvideoedit.training.randomness import random_states, restore_random_states
from imvideoedit.training.stopping import Stopped, StopRequest

PART = 2**24  # bytes read at a time


class Checkpoints(Checkpoint):
    """Saves every N optimizer steps, at the end, and when asked to stop.

    Args:
        folder: where to.
        every_n_steps: optimizer steps between checkpoints, at least 1.
        keep: how many of the latest stay.

    Raises:
        UserError: a number is below 1.
    """

    def __init__(self, folder: Path | str, every_n_steps: int, keep: int = 3) -> None:
        if every_n_steps < 1 or keep < 1:
            raise UserError(f"need every_n_steps and keep of at least 1; got {every_n_steps} and {keep}")
        self.folder, self.every_n_steps, self.keep = Path(folder), every_n_steps, keep
        self.request = StopRequest()
        self._seen = self._saved = -1
        self._random: list[dict[str, Any]] = []

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["random"] = random_states()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._random = checkpoint["random"]
        progress = checkpoint["loops"]["fit_loop"]
        batches, epochs = progress["epoch_loop.batch_progress"], progress["epoch_progress"]
        # Lightning counts the batches of one process; with another number of them the epoch would end early or late.
        for counts in (batches["total"], batches["current"]):
            begun = counts["ready"]
            now = begun * len(self._random) // trainer.world_size
            counts.update({name: now - (begun - count) for name, count in counts.items()})
        # A run that reached its last step counts its epoch as done, so that with more steps it would not go on in it.
        if not batches["is_last_batch"]:
            for counts in (epochs["total"], epochs["current"]):
                counts["processed"] = counts["completed"] = counts["ready"] - 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.request.training = True
        restore_random_states(self._random)
        self._seen = trainer.global_step
        self._saved = trainer.global_step if trainer.ckpt_path else -1

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == self._seen:  # amid an accumulation
            return
        self._seen = trainer.global_step
        stop = trainer.strategy.reduce_boolean_decision(self.request.come, all=False)
        if stop or self._seen % self.every_n_steps == 0:
            self._save(trainer)
        if stop:
            raise Stopped(self._seen)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._saved != trainer.global_step:
            self._save(trainer)

    def last_good(self) -> str:
        """The newest checkpoint's path, or ``none``."""
        sealed = _sealed(self.folder)
        return str(sealed[0].with_suffix(".ckpt")) if sealed else "none"

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
                _seal(partial, final, {"step": step, "strategy": kind, "processes": trainer.world_size})
                for old in _sealed(self.folder)[self.keep :]:
                    discard(old)
            trainer.strategy.barrier()
        except (OSError, RuntimeError) as error:
            _remove(partial)
            raise self._unsaved(step, error) from error
        self._saved = step

    def _unsaved(self, step: int, error: Exception) -> Exception:
        free = shutil.disk_usage(self.folder).free
        sealed = _sealed(self.folder)
        if isinstance(error, RuntimeError) and "writ" not in str(error):
            return error
        back = f"goes on from step {json.loads(sealed[0].read_text())['step']}" if sealed else "begins anew"
        return UserError(
            f"the checkpoint of step {step} cannot be written to {self.folder} ({free / 2**30:.1f} GiB free): "
            f"{str(error).splitlines()[0]}; free some space and run the same command again, which {back}"
        )


def latest(folder: Path | str) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that is as it was written, and what its seal says; damaged ones are named and left out."""
    for seal in _sealed(Path(folder)):
        try:
            facts = json.loads(seal.read_text())
            found = _checksums(seal.with_suffix(".ckpt"))
        except (OSError, ValueError):
            facts, found = {}, None
        if found is not None and found == facts.get("files"):
            return seal.with_suffix(".ckpt"), facts
        print(f"warning: checkpoint {seal.with_suffix('.ckpt')} is damaged; taking the one before", flush=True)
    return None


def check_processes(trainer: Trainer, path: Path, facts: dict[str, Any]) -> None:
    """Refuse to go on where the checkpoint's state cannot be shared out anew.

    Raises:
        UserError: another strategy than before, or another number of processes with ZeRO-2.
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
            f"{path} shares its ZeRO-2 state out among {facts['processes']} processes, not {trainer.world_size}; "
            f"give {facts['processes']} again, or begin another run with task.start=ADAPTER"
        )


def discard(seal: Path) -> None:
    """Remove a checkpoint, its seal first."""
    seal.unlink(missing_ok=True)
    _remove(seal.with_suffix(".ckpt"))


def _sealed(folder: Path) -> list[Path]:
    """Seals, newest first."""
    return sorted(folder.glob("step-*.json"), reverse=True)


def _seal(partial: Path, final: Path, facts: dict[str, Any]) -> None:
    seal = final.with_suffix(".json")
    discard(seal)
    files = _checksums(partial)
    os.replace(partial, final)
    with replacing(seal) as temporary:
        temporary.write_text(json.dumps({**facts, "files": files}) + "\n")


def _checksums(path: Path) -> dict[str, str]:
    """Checksum of a file under the name "", or of each file of a folder."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return {str(file.relative_to(path)) if path.is_dir() else "": _checksum(file) for file in files}


def _checksum(path: Path) -> str:
    digest = xxhash.xxh3_128()
    for part in _parts(path):
        digest.update(part)
    return digest.hexdigest()


def _parts(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(PART):
            yield part


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints beside their final place and renames them, so that a crash leaves the one before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)
