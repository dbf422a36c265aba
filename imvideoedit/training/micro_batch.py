"""How many pairs a process computes at a time: as many as its GPU holds, so that it is not fed single pairs."""

from dataclasses import replace
from typing import Any

import torch
from omegaconf import DictConfig

from imvideoedit.common.errors import UserError
from imvideoedit.common.owner import is_first_process
from imvideoedit.training.dry_run import Plan
from imvideoedit.training.estimate import GIB, estimate

AUTO = "auto"
SHARE = 0.92  # of a GPU's memory that the estimate may fill; of two measured steps it was 1 and 4 % above the peak


def choose_batch_size(config: DictConfig) -> None:
    """Replace ``data.batch_size=auto`` by the largest part of ``global_batch`` that fits; by 1 without a GPU.

    An optimizer step then has the same pairs as with any other size. The estimate decides; the first step is its check,
    and where it runs out of memory says so in one line.

    Raises:
        UserError: there is no ``global_batch`` to make parts of.
    """
    if config.data.get("batch_size") != AUTO:
        return
    if config.global_batch is None:
        raise UserError("data.batch_size=auto makes parts of global_batch, which is not set; set it, or a batch size")
    config.data.batch_size = 1
    if not torch.cuda.is_available():
        return
    processes = _processes(config.trainer)
    room = torch.cuda.get_device_properties(0).total_memory
    config.data.batch_size, needed = _largest(config, config.global_batch // processes, SHARE * room)
    if not is_first_process():
        return
    print(
        f"data.batch_size={config.data.batch_size}: {needed / GIB:.1f} of {room / GIB:.1f} GiB by the estimate, "
        f"{config.global_batch // (processes * config.data.batch_size)} of them a step"
    )


def _largest(config: DictConfig, share: int, room: float) -> tuple[int, float]:
    """The largest divisor of a process's share of a step that fits into ``room`` bytes, else 1, and what it needs."""
    plan, needed = Plan(config), 0.0
    for size in sorted((n for n in range(1, share + 1) if share % n == 0), reverse=True):
        setting = replace(plan.setting(), pairs=replace(plan.pairs, count=size))
        needed = sum(estimate(plan.sizes, plan.method, setting).values())
        if needed <= room:
            return size, needed
    return 1, needed


def _processes(trainer: Any) -> int:
    """Processes of a configured trainer on GPUs."""
    devices = trainer.get("devices", 1)
    if isinstance(devices, str) and not devices.isdecimal() or devices == -1:  # auto
        devices = torch.cuda.device_count()
    count = int(devices) if isinstance(devices, int | str) else len(devices)
    return max(count, 1) * int(trainer.get("num_nodes") or 1)
