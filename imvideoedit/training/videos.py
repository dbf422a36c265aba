"""Validation videos, made by ``imvideoedit-edit`` in a process of its own while training continues."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from imvideoedit.common.errors import UserError
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.training.export import export_average


class BackgroundEdits(Callback):
    """Every N optimizer steps writes the moving average as an adapter file and edits a list of videos with it.

    Training waits only for the file. While an earlier list is still being edited, the next one is skipped. Videos and
    the command's log are in ``<folder>/step-<N>``.

    Args:
        folder: of adapter files and videos.
        jobs: a list of edits, .jsonl or .csv, as the command takes it; None for no videos.
        every_n_steps: optimizer steps between lists, at least 1.
        sampling: the adapter's own.
        device: of the edits, such as ``cpu`` or a GPU that does not train.

    Raises:
        UserError: there is no such list, or the number is below 1.
    """

    def __init__(
        self,
        folder: Path | str,
        jobs: Path | str | None,
        every_n_steps: int,
        sampling: SamplingConfig,
        device: str = "cpu",
    ) -> None:
        if every_n_steps < 1:
            raise UserError(f"callbacks.videos.every_n_steps is {every_n_steps}; it must be at least 1")
        if jobs is not None and not Path(jobs).is_file():
            raise UserError(f"there is no list of edits at {jobs}; correct callbacks.videos.jobs, or set it to null")
        self.folder, self.jobs, self.every_n_steps = Path(folder), jobs, every_n_steps
        self.sampling, self.device = sampling, device
        self._latest = 0
        self._running: subprocess.Popen[bytes] | None = None

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        step = trainer.global_step
        if self.jobs is None or step % self.every_n_steps or step == self._latest:
            return
        self._latest = step
        busy = self._running is not None and self._running.poll() is None
        if trainer.strategy.reduce_boolean_decision(busy, all=False):
            return
        adapter = self.folder / f"step-{step:06d}.safetensors"
        export_average(trainer, pl_module, adapter, self.sampling, "bfloat16")
        if trainer.is_global_zero:
            self._running = self._start(adapter)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._running is not None:
            self._running.wait()

    def _start(self, adapter: Path) -> "subprocess.Popen[bytes]":
        out = adapter.with_suffix("")
        out.mkdir(parents=True, exist_ok=True)
        options = ["--adapter", adapter, "--output", out, "--device", self.device]
        command = [sys.executable, "-m", "imvideoedit.edit", str(self.jobs), *map(str, options)]
        with (out / "log.txt").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)
