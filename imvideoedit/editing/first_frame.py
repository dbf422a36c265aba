"""The first frame that an adapter needs and nobody gave: whether it needs one, and which other adapter makes it."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from imvideoedit.common.bundled import ADAPTER
from imvideoedit.edit_batch import Input
from imvideoedit.methods.adapter_header import AdapterHeader, read_header
from imvideoedit.methods.known import METHODS


def wanted(declared: Sequence[Input], given: Collection[str]) -> list[str]:
    """Names of required images that are the target's first frame and are not given."""
    return [each.name for each in declared if each.required and each.from_target and each.name not in given]


def needs_first_frame(adapter: Path) -> bool:
    """Whether an adapter's method needs an image that is the target's first frame, by its header.

    Raises:
        UserError: the file is missing or damaged.
    """
    method = METHODS.get(read_header(adapter).method)
    return method is not None and bool(wanted(method.inputs, ()))


def chosen_editor(adapter: Path, editor: Path | None) -> Path | None:
    """The adapter that edits the first frame for another one; None if there is none.

    Args:
        adapter: that may need one.
        editor: asked for; else the bundled one, where it is of the same backbone.

    Raises:
        UserError: a file is missing or damaged.
    """
    if editor is not None:
        return editor
    return ADAPTER if _backbone(read_header(adapter)) == _backbone(read_header(ADAPTER)) else None


def _backbone(header: AdapterHeader) -> Any:
    return header.backbone["parameter_hash"]
