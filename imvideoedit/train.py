"""``python -m imvideoedit.train [+experiment=NAME] [key=value …]``: compose, instantiate, fit.

``resume=true`` goes on from the run's last checkpoint, or starts where there is none; a finished run is left as it is,
so a sweep that was interrupted does the rest when it is started again.
"""

import json
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning import Trainer
from omegaconf import DictConfig, OmegaConf

from imvideoedit.callbacks import quiet_libraries
from imvideoedit.composition import command
from imvideoedit.errors import UserError
from imvideoedit.files import replacing

FIXED = ("seed", "backbone", "method", "data")  # settings that a run cannot change when it goes on


def fit(config: DictConfig) -> Trainer | None:
    """Train as composed, then do what is to be done ``afterwards``; returns the trainer, or None for a finished run.

    Raises:
        UserError: a run is there already and ``resume`` is not set, or a part cannot be made as configured.
    """
    run = Path(config.run_dir)
    last, finished = run / "checkpoints" / "last.ckpt", run / "finished.json"
    if last.exists() and not config.resume:
        raise UserError(f"{run} holds a run already; add resume=true to go on with it, or name=ANOTHER")
    if config.resume and not last.exists():
        print(f"no checkpoint in {run}; starting at step 0")
    settings = _settings(config)
    _check_same(run, settings, last.exists())
    if finished.exists() and json.loads(finished.read_text()) == settings:
        print(f"{run} is finished, with these very settings; nothing to do")
        return None
    trainer = _train(config, last)
    if trainer.is_global_zero:
        for step in instantiate(config.afterwards).values():
            step(run)
        with replacing(finished) as path:
            path.write_text(json.dumps(settings, indent=2) + "\n")
    return trainer


def _train(config: DictConfig, last: Path) -> Trainer:
    quiet_libraries()
    torch.set_float32_matmul_precision("high")
    task = instantiate(config.task)
    data = instantiate(config.data)
    callbacks = [callback for callback in instantiate(config.callbacks).values() if callback is not None]
    loggers = list(instantiate(config.logger).values())
    trainer = instantiate(config.trainer, callbacks=callbacks, logger=loggers)
    trainer.fit(task, data, ckpt_path=last if last.exists() else None, weights_only=True)
    trainer.save_checkpoint(last)
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
