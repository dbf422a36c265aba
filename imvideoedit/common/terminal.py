"""Printing texts that others wrote: they command no terminal."""

import re
import sys
from typing import Any, TextIO

# Controls and escape sequences, which command a terminal, and what turns the direction of a text around.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_JOINER = "\u200d"  # within emoji


def printable(text: Any) -> str:
    r"""The text for a terminal or a log: line breaks and tabs stay, other controls become ``\x1b`` and the like."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def in_one_line(text: Any) -> str:
    """The text as one line: breaks, tabs and runs of spaces are one space each, what cannot be seen is spelled out."""
    line = " ".join(str(text).split())
    return line if line.isprintable() else "".join(map(_shown, line))


def _shown(letter: str) -> str:
    return letter if letter.isprintable() or letter == _JOINER else ascii(letter)[1:-1]


def say(*texts: Any, file: TextIO | None = None) -> None:
    """Print texts that others wrote in one line, at once; to stdout if ``file`` is None."""
    line = " ".join(printable(text) for text in texts)
    print(line.replace("\n", "\\n"), file=file or sys.stdout, flush=True)
