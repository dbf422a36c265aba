"""Runs of the training command as real processes that share one import: they are forked, killed and started again."""

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from lightning import Callback, Trainer

from imvideoedit.common.errors import exit_cleanly
from imvideoedit.common.hydra_command import mistakes_in_one_line
from imvideoedit.train import fit
from tests.processes import PATIENCE, SERVER, take_one_thread

HERE = [
    "+experiment=13k", "name=tiny", "backbone.name=nano", "sampling.max_area=1024", "method=aligned_update",
    "data.num_workers=0", "data.val_share=0", "data.cache=cache", "data.epochs=9", "data.batch_size=1",
    "global_batch=1", "trainer=single", "trainer.precision=32-true", "trainer.accelerator=cpu", "trainer.max_steps=2",
    "trainer.val_check_interval=null", "trainer.log_every_n_steps=1", "callbacks.progress=null", "logger=none",
    "callbacks.watch=null", "optimizer=adamw", "afterwards=null",
]  # fmt: skip
CONF = str(Path(__file__).parents[1] / "conf")


class SignalAt(Callback):
    """Sends its own process a signal after an optimizer step, so that no test has to hit the moment from outside.

    Only once in a working folder: the file ``signalled`` marks that.

    Args:
        step: number of the step, from 1.
        number: of the signal.
        after: only where a file of this name exists below the working folder; null for always.
    """

    def __init__(self, step: int, number: int, after: str | None) -> None:
        self.step, self.number, self.after = step, number, after

    def on_train_batch_end(self, trainer: Trainer, *_) -> None:
        mark = Path("signalled")
        due = self.after is None or any(Path().rglob(self.after))
        if trainer.global_step == self.step and due and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), self.number)


def signal_at(step: int, number: int = signal.SIGKILL, after: str = "null") -> str:
    """The override that adds a :class:`SignalAt`."""
    values = f"step: {step}, number: {int(number)}, after: {after}"
    return f"+callbacks.signal={{_target_: tests.training_runs.SignalAt, {values}}}"


class Run:
    """One start of the command by some processes, as torchrun would start them.

    Args:
        folder: to run in; each process's output goes to ``out-<rank>`` and ``err-<rank>`` there.
        overrides: of the command line.
        processes: how many.
    """

    def __init__(self, folder: Path, overrides: Sequence[str], processes: int = 1) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        ranks = range(processes)
        self.processes = [
            SERVER.Process(target=command, args=(folder, list(overrides), rank, processes, port)) for rank in ranks
        ]
        for process in self.processes:
            process.start()

    def running(self) -> bool:
        """Whether any process still runs."""
        return any(process.is_alive() for process in self.processes)

    def wait(self, limit: float = PATIENCE) -> list[int]:
        """Exit codes, by rank; where one process fails, the others are ended as torchrun would."""
        end = time.monotonic() + limit
        while self.running():
            if time.monotonic() > end or any(process.exitcode for process in self.processes):
                time.sleep(1.0)
                self.signal(signal.SIGKILL)
            time.sleep(0.01)
        return [process.exitcode for process in self.processes]

    def signal(self, number: int) -> None:
        """Send all processes a signal."""
        for process in self.processes:
            if process.is_alive():
                os.kill(process.pid, number)

    def said(self, kind: str = "err", rank: int = 0) -> str:
        """What a process wrote, in all starts in this folder."""
        path = self.folder / f"{kind}-{rank}"
        return path.read_text() if path.exists() else ""


def command(folder: Path, overrides: list[str], rank: int, processes: int, port: int) -> None:
    """The body of a process."""
    os.chdir(folder)
    for number, kind in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{kind}-{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, closefd=False) for number in (1, 2))
    os.environ["HF_HUB_OFFLINE"] = "1"
    take_one_thread()
    if processes > 1:
        own = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": processes, "MASTER_PORT": port}
        own |= {"LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test"}
        os.environ.update({name: str(value) for name, value in own.items()})
    composed(overrides)


@exit_cleanly
def composed(overrides: list[str]) -> None:
    """As ``python -m imvideoedit.train`` does it."""
    with mistakes_in_one_line(), initialize_config_dir(CONF, version_base="1.3"):
        config = compose("train", overrides)
        fit(config)


def train_here(folder: Path, monkeypatch: Any, *overrides: str) -> Path:
    """Two steps on image pairs with the bundled backbone, in this process; returns the adapter.

    Args:
        folder: to run in.
        monkeypatch: pytest's.
    """
    monkeypatch.chdir(folder)
    with initialize_config_dir(CONF, version_base="1.3"):
        config = compose("train", [*HERE, *overrides])
    fit(config)
    return folder / "runs/tiny/adapter.safetensors"
