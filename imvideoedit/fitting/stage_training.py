"""One stage of a fit: optimizer steps by the task of every training, with checkpoints from which it goes on exactly."""

import contextlib
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from imvideoedit.common.terminal import say
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.fitting.samples import StageSamples
from imvideoedit.methods.base import Method
from imvideoedit.training.block_offload import offloaded
from imvideoedit.training.checkpoints import AtomicCheckpointIO, Checkpoints, latest
from imvideoedit.training.export import ExportAdapter
from imvideoedit.training.optimizers import adamw, adamw_8bit
from imvideoedit.training.precision import fast_precision
from imvideoedit.training.progress import TrainingBar, quiet_libraries
from imvideoedit.training.task import EditTask
from imvideoedit.wan.backbone import Backbone

SAID_EVERY = 2.0  # seconds between two lines of progress
OPTIMIZER: dict[str, Any] = {"betas": (0.9, 0.99), "weight_decay": 0.01}


@dataclass(frozen=True)
class Stage:
    """How a stage trains.

    Attributes:
        name: for people.
        folder: takes its checkpoints.
        adapter: the file that it makes.
        steps: of the optimizer.
        rate: the learning rate.
        seed: of initial weights, noise and order.
        start: adapter whose weights it starts from; None for fresh ones.
        eight_bit, checkpointing, checkpoint_every: see ``FitRequest``.
        offload: whether blocks are on the device one by one.
        sampling, about: for the adapter's header, see ``ExportAdapter``.
    """

    name: str
    folder: Path
    adapter: Path
    steps: int
    rate: float
    seed: int
    start: Path | None
    eight_bit: bool
    checkpointing: bool
    offload: bool
    checkpoint_every: int
    sampling: SamplingConfig
    about: Mapping[str, Any]


def train_stage(stage: Stage, backbone: Backbone, method: Method, samples: StageSamples, device: torch.device) -> None:
    """Train to the stage's last step, from its latest checkpoint if there is one, and write its adapter.

    Args:
        backbone: its transformer has no method installed.
        method: not installed yet; it stays in the transformer.

    Raises:
        UserError: trained values are not finite, or a file cannot be written.
        TrainingStopped: at SIGTERM, once the state is saved.
    """
    quiet_libraries()
    make = partial(adamw_8bit if stage.eight_bit else adamw, lr=stage.rate, **OPTIMIZER)
    task = EditTask(
        backbone,
        method,
        make,
        warmup=0,
        ema_decay=0.0,  # of a hundred steps an average would lag behind
        start=stage.start,
        gradient_checkpointing=stage.checkpointing,
        compile=False,  # which takes minutes for each shape, of a stage of a hundred steps
        seed=stage.seed,
    )
    checkpoints = Checkpoints(stage.folder, stage.checkpoint_every, keep=1)
    with contextlib.ExitStack() as placed:
        if stage.offload:
            placed.enter_context(offloaded(backbone.transformer, device))
        trainer = _trainer(stage, checkpoints, device, placed)
        checkpoints.stop.listen(trainer)
        found = latest(stage.folder)
        trainer.fit(task, samples, ckpt_path=found and found[0], weights_only=True)


def _trainer(stage: Stage, checkpoints: Checkpoints, device: torch.device, placed: contextlib.ExitStack) -> Trainer:
    shown = sys.stdout.isatty()  # a log and a page show no bar
    progress = StageBar(stage.name, stage.steps) if shown else StageLines(stage.name, stage.steps)
    export = ExportAdapter(stage.adapter, stage.sampling, about=stage.about)
    return Trainer(
        max_steps=stage.steps,
        max_epochs=-1,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index or 0] if device.type == "cuda" else 1,
        precision=fast_precision() if device.type == "cuda" else "32-true",
        gradient_clip_val=1.0,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        logger=False,
        enable_progress_bar=shown,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[progress, EndsBeforeExport(placed), export, checkpoints],
        plugins=[AtomicCheckpointIO()],
        default_root_dir=stage.folder,
    )


class EndsBeforeExport(Callback):
    """Ends a context once training has: an adapter's header describes the base's own weights, which must be there."""

    def __init__(self, context: contextlib.ExitStack) -> None:
        self._context = context

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._context.close()

    on_fit_end = on_train_end  # where nothing was left to train


class StageLines(Callback):
    """Says in lines on stdout how many of a stage's steps are done, and when it ends."""

    def __init__(self, name: str, steps: int) -> None:
        self._name, self._steps = name, steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._before, self._began = trainer.global_step, time.monotonic()
        self._said = self._began

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        step, now = trainer.global_step, time.monotonic()
        if now - self._said < SAID_EVERY and step < self._steps:
            return
        self._said = now
        left = (now - self._began) / max(step - self._before, 1) * (self._steps - step)
        say(f"{self._name}: {step} of {self._steps} steps, about {left:.0f} s left")


class StageBar(TrainingBar):
    """Names the stage, and counts to its last step."""

    def __init__(self, name: str, steps: int) -> None:
        super().__init__(leave=True)
        self._name, self._steps = name, steps

    @property
    def total_train_batches(self) -> int:
        return self._steps

    def _get_train_description(self, current_epoch: int) -> str:
        return self._name
