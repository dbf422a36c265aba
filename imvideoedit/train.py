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
_TRACEBACKS = "HYDRA_FULL_ERROR"


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
    with _mistakes_in_one_line():
        _composed()


@contextlib.contextmanager
def _mistakes_in_one_line() -> Iterator[None]:
    if os.environ.get(_TRACEBACKS) == "1":
        yield
        return
    os.environ[_TRACEBACKS] = "1"  # makes Hydra raise what it would print
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise _user_error(error) from error
    finally:
        del os.environ[_TRACEBACKS]


def _user_error(error: Exception) -> Exception:
    """The line for a mistake in the configuration; the error itself where the program is to blame."""
    cause: Any = error
    if isinstance(error, InstantiationException):
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if not isinstance(cause, UserError | ValueError | TypeError | OmegaConfBaseException | InstantiationException):
            return error
    if isinstance(cause, UserError):
        return cause
    return UserError(f"{cause}; --help lists the settings")


if __name__ == "__main__":
    main()
