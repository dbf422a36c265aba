"""A spending limit that holds for several threads and processes, across restarts."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from imvideoedit.common.errors import UserError
from imvideoedit.common.json_file import read_checked, write_checked


class Budget:
    """The money spent so far, in a JSON file next to a lock; a limit of None only counts.

    A call reserves the most it may cost, and afterwards settles for its actual cost. A process that dies in between
    leaves the reservation, since the call may have been charged.
    """

    def __init__(self, limit: float | None, path: Path) -> None:
        self._limit, self._path = limit, path

    @property
    def spent(self) -> float:
        """So far, including reservations."""
        try:
            spent = read_checked(self._path, "fix or remove it").get("spent")
        except UserError:
            if not self._path.exists():
                return 0.0
            raise
        if isinstance(spent, bool) or not isinstance(spent, int | float) or spent < 0:
            raise UserError(f"{self._path} does not say what was spent; fix or remove it")
        return float(spent)

    def reserve(self, bound: float) -> None:
        """Count ``bound`` as spent.

        Raises:
            UserError: it would exceed the limit, or the folder cannot be written to.
        """
        with self._locked():
            spent = self.spent
            if self._limit is not None and spent + bound > self._limit:
                raise UserError(
                    f"the budget is spent: {spent:.4g} of {self._limit:g} is used and one more question may cost "
                    f"{bound:.4g}; raise IMVIDEOEDIT_MAX_COST, or remove {self._path} to count from zero"
                )
            self._write(spent + bound)

    def settle(self, bound: float, cost: float) -> None:
        """Replace the reservation of ``bound`` by the actual cost."""
        if cost != bound:
            with self._locked():
                self._write(max(self.spent - bound + cost, 0.0))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        folder = self._path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = self._path.with_suffix(".lock").open("w")
        except (PermissionError, FileExistsError, NotADirectoryError) as error:
            raise UserError(f"cannot write to the cache folder {folder} ({error}); set IMVIDEOEDIT_CACHE") from error
        with lock:  # opened anew each time, so it separates threads as well as processes
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, spent: float) -> None:
        write_checked(self._path, {"spent": spent})
