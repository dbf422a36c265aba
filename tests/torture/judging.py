"""How a reader took a mutant: accepted, refused in one line, or a failure; and which lines of the package it ran."""

import contextlib
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imvideoedit
from imvideoedit.common.errors import LONGEST, UserError

PACKAGE = str(Path(imvideoedit.__file__).parent)
LONGEST_ERROR = int(1.1 * LONGEST)  # letters: a shortened one has a mark in it
NEW = "new lines"


def judged(check: Callable[[Path], Any], path: Path, lines: set[Any] | None) -> tuple[str, str | None]:
    """What is wrong with how a file is read, empty if nothing; and the words it is refused in, if it is.

    Args:
        check: reads it.
        lines: of the package that were reached before; new ones are added, and the mark ``NEW``. None to not look.
    """
    try:
        with contextlib.nullcontext() if lines is None else _traced(lines):
            check(path)
        return "", None
    except UserError as error:
        return bad_line(str(error)), str(error)
    except MemoryError:
        return "more memory than one input may take", None
    except BaseException as error:
        return told(error), None


def bad_line(text: str) -> str:
    """What is wrong with an error's line; empty if nothing."""
    odd = next((letter for letter in text if not letter.isprintable() and letter != "\u200d"), None)
    if odd is not None:
        return f"an error with the letter {odd!r} in it: {ascii(text)[:200]}"
    if not text.strip() or len(text) > LONGEST_ERROR:
        return f"an error of {len(text)} letters: {text[:80]}"
    return ""


def told(error: BaseException) -> str:
    """An exception in one line, with the deepest place in the package."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(PACKAGE)] or frames
    where = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "nowhere"
    return f"{type(error).__name__} at {where}: {ascii(str(error))[:200]}"


def shape_of(text: str) -> str:
    """An error's words without what it quotes."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|\S*[\d/]\S*", "_", text)[:120]


class _traced:
    """Adds the package's lines that run inside to a set, and ``NEW`` if there are any."""

    def __init__(self, lines: set[Any]) -> None:
        self._lines = lines

    def __enter__(self) -> None:
        sys.settrace(self._call)

    def __exit__(self, *args: object) -> None:
        sys.settrace(None)

    def _call(self, frame: Any, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(PACKAGE) else None

    def _line(self, frame: Any, event: str, argument: Any) -> Any:
        place = (frame.f_code, frame.f_lineno)
        if event == "line" and place not in self._lines:
            self._lines.update((place, NEW))
        return self._line
