"""What ends training early: SIGTERM, as Slurm and spot machines send it, and the clock.

At SIGTERM training saves its state, and the command ends with exit code 0.
"""

import signal
import sys
from types import FrameType
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Timer


class TrainingStopped(Exception):
    """Training received SIGTERM and has saved its state at this optimizer step."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped by SIGTERM, saved at step {step}; run the same command to resume")


class StopRequest:
    """Whether SIGTERM was received. Before training has a state to save, the command ends at once."""

    def __init__(self) -> None:
        self.received = self.training = False

    def listen(self, trainer: Trainer) -> None:
        """Handle SIGTERM from now on, in place of Lightning, which would stop in the middle of a step."""
        connector: Any = trainer._signal_connector
        connector.register_signal_handlers = lambda: None
        signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if not self.training:
            print("stopped by SIGTERM before the first step; run the same command to resume", flush=True)
            sys.exit(0)


def time_share(trainer: Trainer) -> float:
    """Share of the trainer's ``max_time`` that training has taken, resumed runs together; 0 without one."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for timer in callbacks:
        if isinstance(timer, Timer):
            taken, left = timer.time_elapsed(), timer.time_remaining()
            return 0.0 if left is None else taken / max(taken + left, 1e-9)
    return 0.0
