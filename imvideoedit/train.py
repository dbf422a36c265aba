"""``python -m imvideoedit.train [+experiment=NAME] [key=value …]``: compose, instantiate, fit.

``resume=true`` goes on from the run's last checkpoint, or starts where there is none.
"""

from pathlib import Path

import torch
from hydra.utils import instantiate
from lightning import Trainer
from omegaconf import DictConfig

from imvideoedit.callbacks import quiet_libraries
from imvideoedit.composition import command
from imvideoedit.errors import UserError


def fit(config: DictConfig) -> Trainer:
    """Train as composed; returns the trainer after its last step.

    Raises:
        UserError: a run is there already and ``resume`` is not set, or a part cannot be made as configured.
    """
    last = Path(config.run_dir) / "checkpoints" / "last.ckpt"
    if last.exists() and not config.resume:
        raise UserError(f"{config.run_dir} holds a run already; add resume=true to go on with it, or name=ANOTHER")
    if config.resume and not last.exists():
        print(f"no checkpoint in {config.run_dir}; starting at step 0")
    quiet_libraries()
    torch.set_float32_matmul_precision("high")
    task = instantiate(config.task)
    data = instantiate(config.data)
    callbacks = list(instantiate(config.callbacks).values())
    loggers = list(instantiate(config.logger).values())
    trainer = instantiate(config.trainer, callbacks=callbacks, logger=loggers)
    trainer.fit(task, data, ckpt_path=last if last.exists() else None, weights_only=True)
    trainer.save_checkpoint(last)
    return trainer


main = command("train", fit)


if __name__ == "__main__":
    main()
