"""What a checkpoint restores is set to what this start asks for."""

from typing import Any

from lightning import Trainer
from torch.optim import Optimizer

Options = list[dict[str, Any]]


def options_of(optimizer: Optimizer) -> Options:
    """The options of an optimizer's groups, such as learning rate and weight decay, without the parameters."""
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def apply_options(trainer: Trainer, asked: Options) -> None:
    """Set a restored optimizer's options, and its schedule, to those of a new one; its moments stay.

    The learning rate is the one that the schedule has at this step, so with equal options nothing changes.

    Args:
        asked: from :func:`options_of`, before the checkpoint was loaded.
    """
    (optimizer,) = trainer.optimizers
    for group, options in zip(optimizer.param_groups, asked, strict=True):
        group.update(options)
    scheduler: Any = trainer.lr_scheduler_configs[0].scheduler
    scheduler.base_lrs = [options.get("initial_lr", options["lr"]) for options in asked]
    factors = [factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
    rates = [base * factor for base, factor in zip(scheduler.base_lrs, factors, strict=True)]
    for group, rate, base in zip(optimizer.param_groups, rates, scheduler.base_lrs, strict=True):
        group["lr"], group["initial_lr"] = rate, base
    scheduler._last_lr = rates
