"""Outputs appear complete or not at all; and where the user's cache is."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


def user_cache() -> Path:
    """``IMVIDEOEDIT_CACHE``, or ``imvideoedit`` in the user's cache folder (``XDG_CACHE_HOME`` or ``~/.cache``)."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("IMVIDEOEDIT_CACHE") or caches / "imvideoedit")


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; rename it onto ``path`` when the block succeeds.

    The temporary name keeps the suffix, since encoders choose the container by it. On any failure it
    is removed and ``path`` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
