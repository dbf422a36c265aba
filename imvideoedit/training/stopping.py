"""SIGTERM, as Slurm and spot machines send it: the state is saved, and the command ends with exit code 0."""

import signal
import sys
from types import FrameType
from typing import Any

from lightning import Trainer

from imvideoedit.common.errors import UserError


class Stopped(Exception):
    """Training was asked to stop, and has saved its state at this optimizer step."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped as asked, saved at step {step}; run the same command to go on")


class StopRequest:
    """Knows whether SIGTERM has come. Before training has a state to save, the command ends at once."""

    def __init__(self) -> None:
        self.come = self.training = False

    def listen(self, trainer: Trainer) -> None:
        """From now on take SIGTERM, in place of Lightning, which would break off amid a step."""
        connector: Any = trainer._signal_connector
        connector.register_signal_handlers = lambda: None
        signal.signal(signal.SIGTERM, self._take)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.come = True
        if not self.training:
            print("stopped as asked, before the first step; run the same command to go on", flush=True)
            sys.exit(0)


def accumulation(global_batch: int, micro_batch: int, processes: int) -> int:
    """Micro-batches that each process adds up for an optimizer step.

    Raises:
        UserError: the processes cannot share a global batch out evenly.
    """
    if global_batch % (micro_batch * processes):
        fitting = [n for n in range(1, global_batch // micro_batch + 1) if global_batch % (micro_batch * n) == 0]
        choices = f"; {', '.join(map(str, fitting))} can" if fitting else ""
        raise UserError(
            f"{processes} processes with data.batch_size={micro_batch} cannot make global_batch={global_batch} by "
            f"accumulation{choices}: change trainer.devices, trainer.num_nodes, data.batch_size or global_batch"
        )
    return global_batch // (micro_batch * processes)
