"""Outputs appear complete or not at all, after a power cut too; what a file contains; where the user's cache is."""

import contextlib
import errno
import fcntl
import itertools
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import xxhash

from imvideoedit.common.errors import UserError

NAME_BYTES = 255  # most bytes of a file's name on usual file systems
KEPT_STEM = 40  # characters of a stem in a temporary name, of at most 4 bytes each
BLOCK = 2**20  # bytes read at a time
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # of file systems without locks
_NO_SYNC = (errno.EINVAL, errno.EOPNOTSUPP, errno.EACCES)  # of file systems and folders that take no sync


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
    """``IMVIDEOEDIT_CACHE``, or ``imvideoedit`` in the user's cache folder.

    Raises:
        UserError: the user has no folder.
    """
    own = os.environ.get("IMVIDEOEDIT_CACHE")
    return Path(own) if own else cache_folder() / "imvideoedit"


def cache_folder() -> Path:
    """``XDG_CACHE_HOME``, or ``~/.cache``.

    Raises:
        UserError: the user has no folder, as in a container under a number that it does not know.
    """
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(given) if given else Path.home() / ".cache"
    except RuntimeError as error:
        raise UserError(
            "this user has no home folder; set HOME, or IMVIDEOEDIT_CACHE to a folder for caches"
        ) from error


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary file next to ``path``; rename it onto ``path`` when the block succeeds.

    Its bytes are on the disk before the rename, and the rename is before the block ends: after a power cut ``path`` is
    the old file or the new one, whole. On any failure the temporary file is removed and ``path`` is left as it was. Of
    a killed process it stays until the next write of ``path``, which takes the same one; of two processes at a time
    each has its own. It is there and empty, and must be written, not replaced: it carries a lock.

    Where ``path`` is a link, what it points to is written. The temporary name keeps the suffix, since encoders choose
    the container by it, and is no longer than a file system takes where that of ``path`` is not.
    """
    path = Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _reserved(path, is_folder=False) as temporary:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """As :func:`replacing`, with an empty folder, which takes the place of ``folder`` and of all that is in it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _reserved(folder, is_folder=True) as temporary:
        old = temporary.with_name(f"{temporary.name}.old")
        shutil.rmtree(old, ignore_errors=True)  # of a process that was killed
        yield temporary
        sync(temporary)
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
        _sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _reserved(path: Path, is_folder: bool) -> Iterator[Path]:
    """A temporary file or folder of ``path`` that is empty and no other process's; removed if the block fails."""
    temporary, number = _own(path, is_folder)
    try:
        if is_folder:
            for left in temporary.iterdir():  # by a killed process
                _remove(left)
        else:
            os.ftruncate(number, 0)
        yield temporary
    except BaseException:
        if _is_at(number, temporary):  # else it was renamed already, and the name may be another process's
            _remove(temporary)
        raise
    finally:
        os.close(number)


def _own(path: Path, is_folder: bool) -> tuple[Path, int]:
    """The first temporary name of ``path`` that is not in use, and the number of the open file or folder there."""
    stem, label = path.stem[:KEPT_STEM], xxhash.xxh3_64_hexdigest(os.fsencode(path.name))[:8]
    for place in itertools.count():
        temporary = path.with_name(f".{stem}.{label}-{place}{path.suffix}")
        try:
            number = _locked(temporary, is_folder)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _remove(temporary)
            temporary = path.with_name(f".{stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
            return temporary, _opened(temporary, is_folder)
        if number is not None:
            return temporary, number
    raise AssertionError("a count has no end")


def _locked(temporary: Path, is_folder: bool) -> int | None:
    """The number of the open file or folder, locked; None where another process has it.

    Raises:
        OSError: the folder cannot be written to, or its file system has no locks.
    """
    while True:
        try:
            number = _opened(temporary, is_folder)
        except OSError:
            if temporary.is_symlink() or (temporary.exists() and not os.access(temporary, os.W_OK)):
                return None  # another user's
            raise
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(number, temporary):  # else its owner renamed or removed it just now
                return number
        except BlockingIOError:
            os.close(number)
            return None
        except BaseException:
            os.close(number)
            raise
        os.close(number)


def _opened(temporary: Path, is_folder: bool) -> int:
    if not is_folder:
        return os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    while True:
        temporary.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # its owner renamed it just now
            return os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _is_at(number: int, path: Path) -> bool:
    """Whether the open file is the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(number), path.lstat())
    except FileNotFoundError:
        return False


def sync(path: Path) -> None:
    """Have a file, or a folder with all that is in it, on the disk.

    Raises:
        OSError: the disk does not take it.
    """
    for each in (*path.rglob("*"), path) if path.is_dir() else (path,):
        _sync(each)


def _sync(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on the disk."""
    try:
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
