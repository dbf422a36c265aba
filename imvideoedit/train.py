"""``python -m imvideoedit.train [+experiment=NAME] [key=value …]``: compose, instantiate, fit.

A run that was interrupted goes on from its last whole checkpoint when the same command is given again, and a finished
one is left as it is; ``resume=false`` refuses where a run is already. ``dry_run=true`` tells what a run would cost.
"""

import json
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning import Trainer
from omegaconf import DictConfig, OmegaConf

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing
from imvideoedit.common.hydra_command import command
from imvideoedit.training.checkpoints import Checkpoints, check_processes, latest
from imvideoedit.training.dry_run import memory_mistakes, rehearse
from imvideoedit.training.progress import quiet_libraries
from imvideoedit.training.stopping import Stopped, accumulation

FIXED = ("seed", "backbone", "method", "data")  # settings that a run cannot change when it goes on


def fit(config: DictConfig) -> Trainer | None:
    """Train as composed, then do what is to be done ``afterwards``; returns the trainer, or None for a finished run.

    Raises:
        UserError: a run is there already and ``resume`` is false, or a part cannot be made as configured.
    """
    if config.dry_run:
        rehearse(config)
        return None
    run = Path(config.run_dir)
    last, finished = latest(run / "checkpoints"), run / "finished.json"
    if last is not None and not config.resume:
        raise UserError(f"{run} holds a run already; leave resume=false out to go on with it, or give name=ANOTHER")
    settings = _settings(config)
    _check_same(run, settings, last is not None)
    if finished.exists() and json.loads(finished.read_text()) == settings:
        print(f"{run} is finished, with these very settings; nothing to do")
        return None
    try:
        trainer = _train(config, last)
    except Stopped as stopped:
        print(stopped, flush=True)
        return None
    if trainer.is_global_zero:
        for step in instantiate(config.afterwards).values():
            step(run)
        with replacing(finished) as path:
            path.write_text(json.dumps(settings, indent=2) + "\n")
    return trainer


def _train(config: DictConfig, last: tuple[Path, dict[str, Any]] | None) -> Trainer:
    quiet_libraries()
    torch.set_float32_matmul_precision("high")
    task = instantiate(config.task)
    data = instantiate(config.data)
    callbacks = [callback for callback in instantiate(config.callbacks).values() if callback is not None]
    loggers = list(instantiate(config.logger).values())
    trainer = instantiate(config.trainer, callbacks=callbacks, logger=loggers)
    if config.global_batch is not None:
        trainer.accumulate_grad_batches = accumulation(config.global_batch, config.data.batch_size, trainer.world_size)
    if isinstance(trainer.val_check_interval, int):  # is given in optimizer steps, and taken in batches
        trainer.val_check_interval *= trainer.accumulate_grad_batches
    if last is not None:
        check_processes(trainer, *last)
    for callback in callbacks:
        if isinstance(callback, Checkpoints):
            callback.request.listen(trainer)
    with memory_mistakes(config):
        trainer.fit(task, data, ckpt_path=last[0] if last else None, weights_only=True)
    return trainer


def _check_same(run: Path, settings: dict[str, Any], resumed: bool) -> None:
    """Keep what a run is begun with, and refuse to go on with another model or other data."""
    begun = run / "begun.json"
    if resumed and begun.exists():
        before = json.loads(begun.read_text())
        changed = [key for key in FIXED if before[key] != settings[key]]
        if changed:
            raise UserError(
                f"{run} was begun with other settings of {', '.join(changed)} (see {begun}); "
                "give those again, or begin another run with name=ANOTHER"
            )
        return
    with replacing(begun) as path:
        path.write_text(json.dumps(settings, indent=2) + "\n")


def _settings(config: DictConfig) -> dict[str, Any]:
    """All that decides a run's result."""
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    return {key: value for key, value in resolved.items() if key != "resume"}


main = command("train", fit)


if __name__ == "__main__":
    main()
