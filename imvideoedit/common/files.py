"""Outputs appear complete or not at all; what a file contains; and where the user's cache is."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import xxhash

from imvideoedit.common.errors import UserError

NAME_BYTES = 255  # most bytes of a file's name on usual file systems
KEPT_STEM = 40  # characters of a stem in a temporary name, of at most 4 bytes each
BLOCK = 2**20  # bytes read at a time


def check_name(path: Path) -> None:
    """See that a file system can hold a file of that name.

    Raises:
        UserError: the name is longer, or holds what no name may.
    """
    try:
        size, whole = len(os.fsencode(path.name)), os.fsencode(path)
    except UnicodeEncodeError as error:
        raise UserError(f"the name {str(path)!r} holds half a character; write it in UTF-8") from error
    if b"\0" in whole:
        raise UserError(f"the name {str(path)!r} holds a zero byte; remove it")
    if size > NAME_BYTES:
        raise UserError(f"the name {path.name[:KEPT_STEM]}... has {size} bytes; give one of at most {NAME_BYTES}")


def content_hash(path: Path) -> str:
    """32 hex digits of XXH3 over all of a file's bytes.

    Raises:
        OSError: it cannot be read.
    """
    digest = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def user_cache() -> Path:
    """``IMVIDEOEDIT_CACHE``, or ``imvideoedit`` in the user's cache folder (``XDG_CACHE_HOME`` or ``~/.cache``)."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("IMVIDEOEDIT_CACHE") or caches / "imvideoedit")


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; rename it onto ``path`` when the block succeeds.

    The temporary name keeps the suffix, since encoders choose the container by it, and is no longer than a file system
    takes where that of ``path`` is not. On any failure it is removed and ``path`` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem[:KEPT_STEM]}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
