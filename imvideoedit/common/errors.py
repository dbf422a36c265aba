"""Errors a user can cause: one clear line on stderr and exit code 2, never a traceback."""

import argparse
import contextlib
import errno
import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import NoReturn


class UserError(Exception):
    """What went wrong, where, and how to fix it, in one line."""


class Note(UserWarning):
    """What a result does not keep of what was given, or how something was understood, in one line."""


class CommandLine(argparse.ArgumentParser):
    """A parser that raises a ``UserError`` where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help lists the options")


def exit_cleanly(main: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command's entry point so that user errors end it with one line.

    Exit codes: 2 for a ``UserError`` or a full disk, 130 for Ctrl-C.
    """

    @functools.wraps(main)
    def wrapped(*args, **kwargs) -> None:
        try:
            with _notes_in_one_line():
                main(*args, **kwargs)
        except UserError as error:
            sys.exit(_fail(str(error), 2))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            sys.exit(_fail(f"no space left on the disk{_where(error)}; free some and run again", 2))
        except KeyboardInterrupt:
            sys.exit(_fail("interrupted; no half-written file is left", 130))

    return wrapped


@contextlib.contextmanager
def _notes_in_one_line() -> Iterator[None]:
    """Show each ``Note`` without its place in the code."""
    usual = warnings.formatwarning

    def form(message, category, *args, **kwargs) -> str:
        if issubclass(category, Note):
            return f"note: {' '.join(str(message).split())}\n"
        return usual(message, category, *args, **kwargs)

    warnings.formatwarning = form
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _fail(message: str, code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _where(error: OSError) -> str:
    return f" at {error.filename}" if error.filename else ""
