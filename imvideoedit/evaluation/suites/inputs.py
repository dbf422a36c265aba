"""What the rows of a benchmark give an adapter besides source and text, by what its method declares."""

import sys
from collections.abc import Sequence
from pathlib import Path

from imvideoedit.common.errors import UserError
from imvideoedit.common.terminal import say
from imvideoedit.edit_batch import Input, check_inputs
from imvideoedit.evaluation.edits.manifest import EditRow
from imvideoedit.methods.adapter_header import read_header
from imvideoedit.methods.known import METHODS

BOX = "box:"  # begins a mask that is given by numbers


def declared_inputs(adapter: Path) -> tuple[Input, ...]:
    """The inputs of an adapter's method; none for a method that this version does not know.

    Raises:
        UserError: the file is missing, damaged or no adapter.
    """
    kind = METHODS.get(read_header(adapter).method)
    return kind.inputs if kind else ()


def inputs_of(row: EditRow, declared: Sequence[Input], what: str) -> dict[str, Path | str]:
    """The inputs of a row that a method takes, by name: files, or texts where it takes a text.

    Args:
        what: takes them, for the error.

    Raises:
        UserError: the row lacks one that the method needs, or has a text for a file, or a file for a text.
    """
    kinds = {each.name: each.kind for each in declared}
    given = {name: value for name, value in row.given.items() if name in kinds}
    check_inputs(declared, given, what)
    for name, value in given.items():
        is_text = isinstance(value, str) and not (kinds[name] == "mask" and value.startswith(BOX))
        if kinds[name] == "text" and not is_text:
            raise UserError(f"{what} takes a text for {name}, not the file {value}")
        if kinds[name] != "text" and is_text:
            raise UserError(f"{what} takes a file for {name} ({kinds[name]}), but there is none at {value}")
    return given


def name_unused(rows: Sequence[EditRow], declared: Sequence[Input], what: str) -> None:
    """Print which inputs of the rows the method does not take, a line for all of them."""
    unused = sorted({name for row in rows for name in row.given} - {each.name for each in declared})
    if unused:
        say(f"{what} does not take {', '.join(unused)}, which the edits have; not given to it", file=sys.stderr)
