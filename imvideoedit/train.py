"""``python -m imvideoedit.train [+experiment=NAME] [key=value …]``: compose, instantiate, fit.

``resume=true`` goes on from the run's last checkpoint, or starts where there is none.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from lightning import Trainer
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from imvideoedit.callbacks import quiet_libraries
from imvideoedit.errors import UserError, exit_cleanly

_CHECKOUT = Path(__file__).parents[1] / "conf"
CONF = str(_CHECKOUT) if (_CHECKOUT / "train.yaml").is_file() else "pkg://imvideoedit.conf"
_TRACEBACKS_ASKED = os.environ.get("HYDRA_FULL_ERROR") == "1"


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


@hydra.main(config_path=CONF, config_name="train", version_base="1.3")
@exit_cleanly
def _composed(config: DictConfig) -> None:
    with _mistakes_in_one_line():
        fit(config)


@exit_cleanly
def main() -> None:
    """Entry point: what a user gets wrong ends in one line, unless HYDRA_FULL_ERROR=1 asks for tracebacks."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise what it would print
    with _mistakes_in_one_line():
        _composed()


@contextlib.contextmanager
def _mistakes_in_one_line() -> Iterator[None]:
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        mistake = None if _TRACEBACKS_ASKED else _mistake(error)
        if mistake is None:
            raise
        raise mistake from error


def _mistake(error: Exception) -> UserError | None:
    """The line for a mistake in the configuration; None where the program is to blame."""
    cause: Any = error
    while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, UserError):
        return cause
    if isinstance(cause, ValueError | TypeError | ImportError | HydraException | OmegaConfBaseException):
        return UserError(f"{cause}; --help lists the settings, HYDRA_FULL_ERROR=1 shows where it failed")
    return None


if __name__ == "__main__":
    main()
