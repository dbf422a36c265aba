"""Errors a user can cause: one clear line on stderr and exit code 2, never a traceback."""

import argparse
import contextlib
import errno
import functools
import io
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from imvideoedit.common.terminal import in_one_line

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO)
LONGEST = 10_000  # letters of an error; a list of missing files is long
_READER_GONE = (errno.EPIPE, errno.EIO)  # of a pipe, and of a terminal


class UserError(Exception):
    """What went wrong, where, and how to fix it: one line, whatever the names and values in it are."""

    def __str__(self) -> str:
        text = in_one_line(super().__str__())
        # What is quoted can be of any length; the remedy stands at the end.
        return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} [...] {text[-LONGEST // 4 :]}"


class Note(UserWarning):
    """What a result does not keep of what was given, or how something was understood, in one line."""


class CommandLine(argparse.ArgumentParser):
    """A parser that raises a ``UserError`` where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help lists the options")


def one_line(error: BaseException) -> str:
    """An error as one line: a ``UserError`` as it is, any other after its type's name."""
    text = in_one_line(str(error))
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}".removesuffix(": ")


def exit_cleanly(main: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command's entry point so that user errors end it with one line.

    Exit codes: 2 for a ``UserError`` or what the file system refuses, 130 for Ctrl-C. A reader of its output that goes
    away, as in ``| head -1``, does not end it.
    """

    @functools.wraps(main)
    def wrapped(*args, **kwargs) -> None:
        with lasting_output():
            try:
                with notes_in_one_line():
                    main(*args, **kwargs)
            except UserError as error:
                sys.exit(_fail(str(error), 2))
            except OSError as error:
                sys.exit(_fail(_refusal(error), 2))
            except KeyboardInterrupt:
                sys.exit(_fail("interrupted; no half-written file is left", 130))

    return wrapped


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Inside, ``sys.stdout`` and ``sys.stderr`` take any text, and go nowhere once their reader is gone."""
    before = sys.stdout, sys.stderr
    lasting = [_lasting(stream) for stream in before]
    sys.stdout, sys.stderr = lasting
    try:
        yield
    finally:
        for stream in lasting:
            if stream is not None:  # as where a process is started without one
                stream.flush()
        sys.stdout, sys.stderr = before


class _Lasting(io.FileIO):
    """A descriptor whose reader may go away: it then leads nowhere, also for libraries that write to it themselves."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _READER_GONE:
                raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        return len(data)


def _lasting(stream: Any) -> Any:
    """A stream on the same descriptor; the stream itself where it has none, or lasts already."""
    try:
        stream.flush()
        # Without a buffer of its own where PYTHONUNBUFFERED is set.
        descriptor, raw = stream.fileno(), getattr(stream.buffer, "raw", stream.buffer)
    except (AttributeError, OSError, ValueError):
        return stream
    if isinstance(raw, _Lasting):
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(_Lasting(descriptor, "wb", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",  # names of files need not be UTF-8
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _refusal(error: OSError) -> str:
    """What to say of an error of the file system; others, which no user causes, are raised again."""
    if error.errno in _FULL:
        return f"no space left on the disk{_where(error)}; free some and run again"
    if error.errno in _REFUSED:
        return f"{error.strerror}{_where(error)}; check the name, and that it may be read or written"
    raise error


@contextlib.contextmanager
def notes_in_one_line() -> Iterator[None]:
    """Show each ``Note`` without its place in the code, also where warnings are turned off or into errors."""
    usual = warnings.formatwarning

    def form(message, category, *args, **kwargs) -> str:
        if issubclass(category, Note):
            return f"note: {in_one_line(str(message))}\n"
        return usual(message, category, *args, **kwargs)

    with warnings.catch_warnings():
        warnings.simplefilter("always", Note)
        warnings.formatwarning = form
        try:
            yield
        finally:
            warnings.formatwarning = usual


@contextlib.contextmanager
def heard_notes() -> Iterator[list[str]]:
    """Each ``Note`` of this thread, in one line, as a growing list; it is shown as well."""
    usual, thread, heard = warnings.showwarning, threading.get_ident(), []

    def show(message, category, *args, **kwargs) -> None:
        if issubclass(category, Note) and threading.get_ident() == thread:
            heard.append(in_one_line(str(message)))
        usual(message, category, *args, **kwargs)

    warnings.showwarning = show
    try:
        yield heard
    finally:
        warnings.showwarning = usual


def _fail(message: str, code: int) -> int:
    print(f"error: {in_one_line(message)}", file=sys.stderr)
    return code


def _where(error: OSError) -> str:
    return f" at {error.filename}" if error.filename else ""
