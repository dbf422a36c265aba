"""SIGTERM, as Slurm and spot machines send it: training saves its state, and the command ends with exit code 0."""

import signal
import sys
from types import FrameType
from typing import Any

from lightning import Trainer


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
