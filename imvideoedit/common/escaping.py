"""Texts that others wrote (prompts, captions, names of files, answers of models), made safe for where they are shown.

HTML is not here: pages come from templates that escape, and what gradio is given as HTML goes through ``html.escape``.
"""

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from imvideoedit.common.files import replacing
from imvideoedit.common.terminal import printable

# What begins or ends something in Markdown or HTML; an underscore within a word does not.
_MARKUP = re.compile(r"[\\`*\[\]<>|&~$#]|(?<![^\W_])_|_(?![^\W_])")
# What makes a line a list, a rule or a heading.
_LIST = re.compile(r"^(\s*)([-+](?=\s|$)|[-=](?=[-=\s]*$)|\d+(?=[.)](?:\s|$)))")
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
_NUMBER = re.compile(
    r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?( \([-+]?\d+(\.\d+)? to [-+]?\d+(\.\d+)?\))?|[-+]?(inf|nan)", re.IGNORECASE
)


def markdown_text(text: Any) -> str:
    """The text in one line of Markdown that shows it as it is: no markup, no HTML, no further cell of a table."""
    line = " ".join(printable(text).split())
    escaped = _MARKUP.sub(lambda found: f"&#{ord(found[0])};", line)
    return _LIST.sub(lambda found: f"{found[1]}&#{ord(found[2][0])};{found[2][1:]}", escaped)


def markdown_code(text: Any) -> str:
    """The text in one line as code of Markdown, with quotes for backticks."""
    return "`" + " ".join(printable(text).split()).replace("`", "'") + "`"


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write rows, the header among them; texts that a spreadsheet would run as a formula begin with a quote."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([_cell(value) for value in row] for row in rows)


def _cell(value: Any) -> Any:
    """A number, also with its interval, is no formula."""
    is_formula = isinstance(value, str) and value.startswith(_FORMULA) and not _NUMBER.fullmatch(value)
    return f"'{value}" if is_formula else value
