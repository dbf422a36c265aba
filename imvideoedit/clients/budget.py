"""Money that is never overspent, by several threads and processes, across restarts."""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing


class Budget:
    """What was spent so far, in a file beside a lock.

    A call reserves the most it may cost before it is made, and settles for what it did cost afterwards. A process that
    dies in between leaves its reservation spent, since the call may have been charged.

    Args:
        limit: the most that may be spent, or None.
        path: of the file, in JSON; without it nothing was spent yet.
    """

    def __init__(self, limit: float | None, path: Path) -> None:
        self._limit, self._path = limit, path

    @property
    def spent(self) -> float:
        """So far, with the reservations of calls under way."""
        return self._read()

    def reserve(self, bound: float) -> None:
        """Count ``bound`` as spent.

        Raises:
            UserError: it would pass the limit.
        """
        with self._locked():
            spent = self._read()
            if self._limit is not None and spent + bound > self._limit:
                raise UserError(
                    f"the budget is spent: {spent:.4g} of {self._limit:g} is used and one more question may cost "
                    f"{bound:.4g}; raise IMVIDEOEDIT_MAX_COST, or remove {self._path} to count from zero"
                )
            self._write(spent + bound)

    def settle(self, bound: float, cost: float) -> None:
        """Replace the reservation of ``bound`` by what the call did cost."""
        if cost != bound:
            with self._locked():
                self._write(max(self._read() - bound + cost, 0.0))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # Each opening of a file is its own holder of the lock, so this keeps threads apart as well as processes.
        with self._open_lock() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _open_lock(self) -> IO[str]:
        folder = self._path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return open(self._path.with_suffix(".lock"), "w")
        except (PermissionError, FileExistsError, NotADirectoryError) as error:
            raise UserError(f"cannot write to the cache folder {folder} ({error}); set IMVIDEOEDIT_CACHE") from error

    def _read(self) -> float:
        try:
            return float(json.loads(self._path.read_text())["spent"])
        except FileNotFoundError:
            return 0.0
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self._path} does not say what was spent; mend or remove it") from error

    def _write(self, spent: float) -> None:
        with replacing(self._path) as path:
            path.write_text(json.dumps({"spent": spent}))
