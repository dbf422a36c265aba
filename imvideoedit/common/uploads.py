"""The folder of a page's uploads: how much is in it, and what is old."""

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # removed meanwhile
            total += path.lstat().st_size
    return total


def remove_old(paths: Iterable[Path], seconds: float, kept: frozenset[Path]) -> None:
    """Remove files that were last written, moved or linked more than ``seconds`` ago, and folders empty since then.

    Args:
        kept: files and folders that stay.
    """
    before = time.time() - seconds
    for path in sorted(paths, reverse=True):  # what a folder holds comes before it
        with contextlib.suppress(OSError):  # gone meanwhile, or not empty: the next round may have it
            if path in kept or path.lstat().st_ctime > before:
                continue
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
