"""``python -m imvideoedit.train [+experiment=NAME] [key=value …]``: compose, instantiate, fit.

The same command resumes an interrupted run from its latest checkpoint, and leaves a finished one as it is;
``resume=false`` refuses a folder with a run. ``dry_run=true`` prints what a run would cost.
"""

from typing import Any

import torch
from hydra.utils import instantiate
from lightning import Trainer
from omegaconf import DictConfig

from imvideoedit.common.hydra_command import command
from imvideoedit.common.owner import owned
from imvideoedit.training.batches import accumulation_steps
from imvideoedit.training.checkpoints import Checkpoints, check_processes
from imvideoedit.training.dry_run import advise_on_memory, dry_run
from imvideoedit.training.micro_batch import choose_batch_size
from imvideoedit.training.precision import check_precision
from imvideoedit.training.progress import quiet_libraries
from imvideoedit.training.run_folder import RunFolder
from imvideoedit.training.stopping import TrainingStopped
from imvideoedit.training.strategies import check_optimizer


def fit(config: DictConfig) -> None:
    """Train as composed, then do what is configured as ``afterwards``.

    Raises:
        UserError: ``run_dir`` holds a run that cannot be resumed, or a part cannot be made as configured.
    """
    choose_batch_size(config)
    if config.dry_run:
        dry_run(config)
        return
    with owned(config.run_dir, "a training run"):
        _fit(config)


def _fit(config: DictConfig) -> None:
    run = RunFolder(config)
    if run.finished:
        print(f"{run.folder} is finished with the same settings; nothing to do")
        return
    run.start()
    quiet_libraries()
    torch.set_float32_matmul_precision("high")
    task, data, trainer = instantiate(config.task), instantiate(config.data), build_trainer(config)
    check_optimizer(trainer.strategy, task.make_optimizer)
    if run.checkpoint is not None:
        check_processes(trainer, *run.checkpoint)
    try:
        with advise_on_memory(config):
            trainer.fit(task, data, ckpt_path=run.checkpoint and run.checkpoint[0], weights_only=True)
    except TrainingStopped as stopped:
        print(stopped, flush=True)
        return
    if trainer.is_global_zero:
        run.finish(_each(config.afterwards))


def build_trainer(config: DictConfig) -> Trainer:
    """The configured trainer with its callbacks and loggers, which handles SIGTERM."""
    callbacks, loggers = _each(config.callbacks), _each(config.logger)
    trainer = instantiate(config.trainer, callbacks=callbacks, logger=loggers)
    check_precision(trainer)
    if config.global_batch is not None:
        processes = trainer.world_size
        trainer.accumulate_grad_batches = accumulation_steps(config.global_batch, config.data.batch_size, processes)
    if isinstance(trainer.val_check_interval, int):  # configured in optimizer steps, but Lightning counts batches
        trainer.val_check_interval *= trainer.accumulate_grad_batches
    for callback in callbacks:
        if isinstance(callback, Checkpoints):
            callback.stop.listen(trainer)
    return trainer


def _each(group: DictConfig | None) -> list[Any]:
    """What a group of the configuration holds, less what is null; the whole group may be."""
    return [each for each in (instantiate(group) or {}).values() if each is not None]


main = command("train", fit)


if __name__ == "__main__":
    main()
