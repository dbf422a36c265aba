"""Commands as processes of their own: started by Python, or forked from a server that has imported the libraries.

Most of the time of ``python -m imvideoedit.train --help`` goes into importing torch, lightning and diffusers. A test
of what a command does with its arguments forks it instead; at least one test of each command starts it in earnest.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[1]
PATIENCE = 600  # seconds that a command may take on a busy machine
SERVER = multiprocessing.get_context("forkserver")  # its processes have inherited no threads
# Libraries alone: what is under test is imported by each process.
SERVER.set_forkserver_preload(
    [
        *("pytest", "tests.processes", "torch", "torch._dynamo", "torch.utils.tensorboard"),
        *("lightning", "torchmetrics"),
        *("diffusers.models.transformers.transformer_wan", "diffusers.models.autoencoders.autoencoder_kl_wan"),
        *("diffusers.pipelines.wan.pipeline_wan", "transformers.models.umt5.modeling_umt5"),
        *("hydra.main", "hydra.utils", "av", "scipy.stats", "scipy.signal", "skimage.metrics", "pyarrow.parquet"),
        *("datasets", "rich.progress", "openai", "pydantic", "matplotlib.pyplot", "jinja2"),
        "tests.frozen",  # the last
    ]
)


def command_environment() -> dict[str, str]:
    """The environment of a command that is this checkout's, needs no network and takes one thread."""
    # Tracebacks asked for by who runs the tests are not what a user gets.
    outer = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    return outer | {"PYTHONPATH": str(CHECKOUT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def take_one_thread() -> None:
    """As OMP_NUM_THREADS=1, which comes too late for a process whose torch was imported before it was forked."""
    import torch

    torch.set_num_threads(1)


def interruptible() -> None:
    """For ``preexec_fn``: let Ctrl-C through, which processes of a background shell ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Command:
    """``python -m module arguments``, forked: as ``subprocess.Popen`` of it with pipes and text.

    Args:
        module: whose ``__main__`` is run.
        arguments: of the command line.
        env: environment; that of ``command_environment`` if None.
        cwd: folder to run in; the current one if None.
        before: called in the process first; pickled.
    """

    def __init__(
        self,
        module: str,
        *arguments: Any,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        before: Callable[[], Any] | None = None,
    ) -> None:
        self.args = [module, *map(str, arguments)]
        pipes = [SERVER.Pipe(duplex=False) for _ in range(2)]
        given = (self.args, env or command_environment(), cwd or os.getcwd(), before, [pipe[1] for pipe in pipes])
        self._process = SERVER.Process(target=_main, args=given)
        self._process.start()
        for _, writer in pipes:
            writer.close()
        pool = ThreadPoolExecutor(len(pipes))
        self._first: list[Future[str]] = [Future() for _ in pipes]
        readers = [reader for reader, _ in pipes]
        self._said = [pool.submit(_read, *each) for each in zip(readers, self._first, strict=True)]
        pool.shutdown(wait=False)

    @property
    def returncode(self) -> int | None:
        """The exit code, or minus the number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """See ``returncode``."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal unless it has ended."""
        if self.poll() is None and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def first_line(self) -> str:
        """The first line that it writes to stdout, once it is there; empty if it ends without one."""
        return self._first[0].result(PATIENCE)

    def communicate(self, timeout: float = PATIENCE) -> tuple[str, str]:
        """Wait for its end; what it wrote to stdout and stderr."""
        self._process.join(timeout)
        if self.poll() is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self._said[0].result(), self._said[1].result()


def run(module: str, *arguments: Any, forked: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, by ``Command`` or, unless ``forked``, by Python."""
    if not forked:
        command = [sys.executable, "-m", module, *map(str, arguments)]
        given = {"env": command_environment()} | options
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, **given)
    process = Command(module, *arguments, **options)
    out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode or 0, out, err)


def _read(reader: Connection, first: Future[str]) -> str:
    with os.fdopen(os.dup(reader.fileno()), encoding="utf-8", errors="replace") as file:
        reader.close()
        first.set_result(file.readline())
        return first.result() + file.read()


def _main(
    args: Sequence[str],
    env: dict[str, str],
    cwd: Path | str,
    before: Callable[[], Any] | None,
    writers: Sequence[Connection],
) -> None:
    """The body of a process."""
    for number, writer in enumerate(writers, start=1):
        os.dup2(writer.fileno(), number)
        writer.close()
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, encoding="utf-8", closefd=False) for number in (1, 2))
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None  # looked up again, in this environment
    if env.get("OMP_NUM_THREADS") == "1":
        take_one_thread()
    os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if before is not None:
        before()
    sys.argv = list(args)
    try:
        runpy.run_module(args[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
