"""One process at a time writes over a folder: who it is, and what a second one is told."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from imvideoedit.common.errors import UserError
from imvideoedit.common.json_file import read_json
from imvideoedit.common.terminal import in_one_line

FILE = ".owner"
# By launchers, for the processes of one run; the first one owns the folder for all of them.
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")


@contextlib.contextmanager
def owned(folder: Path | str, what: str, wait: bool = False) -> Iterator[None]:
    """Own ``folder``, created if missing, while the block runs; a killed process owns nothing.

    The lock is one of POSIX on ``folder/.owner``: the system gives it up when the process ends, and processes that it
    starts do not inherit it. Other processes of one distributed run own nothing and pass.

    Args:
        what: the work, for the other's message, such as ``a training run``.
        wait: until another process is done, after saying so, instead of an error.

    Raises:
        UserError: another process owns it, named by its number and host; or the folder cannot be written.
    """
    if not is_first_process():
        yield
        return
    path = Path(folder) / FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        number = _locked(path, wait)
    except BlockingIOError as error:
        raise UserError(
            f"{folder} is in use by {_holder(path) or 'another process'}; wait until that ends, end it, or choose "
            "another folder"
        ) from error
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); choose another folder") from error
    try:
        facts = {"process": os.getpid(), "host": socket.gethostname(), "what": what}
        os.ftruncate(number, 0)
        os.pwrite(number, json.dumps(facts).encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(number)


def is_first_process() -> bool:
    """Whether this is the first, or the only, process of a run, by its launcher's environment."""
    given = {name: os.environ[name] for name in RANKS if name in os.environ}
    return given["RANK"] == "0" if "RANK" in given else all(rank == "0" for rank in given.values())


def _locked(path: Path, wait: bool) -> int:
    """The number of the open file, locked.

    Raises:
        BlockingIOError: another process holds it, and we do not wait.
    """
    said = False
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:  # POSIX allows either
                if not wait:
                    raise BlockingIOError(path) from error
                if not said:
                    print(f"waits for {_holder(path) or 'another process'}, which writes {path.parent}", flush=True)
                said = True
                fcntl.lockf(number, fcntl.LOCK_EX)
            # The owner before removes its file when it ends; a lock on a removed one keeps nobody out.
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(number).st_ino == path.stat().st_ino:
                    return number
        except BaseException:
            os.close(number)
            raise
        os.close(number)


def _holder(path: Path) -> str:
    """Who wrote the file, in words on one line, whatever is in it; empty if that cannot be read."""
    try:
        facts = read_json(path)
        return in_one_line(f"{facts['what']}, process {int(facts['process'])} on {facts['host']}")
    except (UserError, ValueError, KeyError, TypeError):
        return ""
