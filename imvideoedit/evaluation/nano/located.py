"""``python -m imvideoedit.evaluation.nano.located ADAPTER …``: 40 edits of two things alike, told apart by instruction.

Each editor is scored against the exact answers, and by which of the two it changed more. An exact first frame or
reference would show the answer, so by default adapters that need one get the source's own first frame in its place.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.common.json_file import write_json
from imvideoedit.common.terminal import say
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.evaluation.nano.editors import adapter_editor, copy_source, input_options
from imvideoedit.evaluation.nano.exact import Editor
from imvideoedit.evaluation.nano.suite import score_editors
from imvideoedit.evaluation.nano.summary import summarize
from imvideoedit.world.edits import Edit
from imvideoedit.world.located import COUNT, located_edits, mistaken

Given = Literal["exact", "source"]


def located_editor(pipeline: EditPipeline, given: Given) -> Editor:
    """The pipeline that users run, by the instruction as typed.

    Args:
        given: what inputs get that are the target's first frame: that, or the ``source``'s first frame.
    """
    exact = adapter_editor(pipeline, "instruction")
    names = [each.name for each in pipeline.method.inputs if each.from_target]
    if given == "exact" or not names:
        return exact

    def run(source: np.ndarray, edit: Edit) -> np.ndarray:
        options = input_options(pipeline, edit, source)
        options["inputs"] = {**options["inputs"], **dict.fromkeys(names, source[0])}
        return pipeline(source, edit.instruction, prompt=edit.instruction, **options).frames

    return run


def right_one(edited: np.ndarray, source: np.ndarray, edit: Edit) -> bool:
    """Whether an edit changed more where it should than where it would have changed the twin; nothing is wrong.

    Args:
        edited, source: uint8 ``[F, H, W, 3]``.
    """
    change_FHW = np.abs(edited.astype(np.int16) - source).mean(-1)
    own, other = (replace(edit, target=scene).render(len(source))[2] for scene in (edit.target, mistaken(edit)))
    here, there = (float(change_FHW[mask].mean()) if mask.any() else 0.0 for mask in (own & ~other, other & ~own))
    return here > there


def score_located(editors: dict[str, Editor], frames: int, count: int = COUNT) -> dict[str, Any]:
    """Scores and the share of right ones, by editor."""
    edits, right = located_edits(count), {name: [False] * count for name in editors}
    places = {id(edit): place for place, edit in enumerate(edits)}

    def watched(name: str, editor: Editor) -> Editor:
        def run(source: np.ndarray, edit: Edit) -> np.ndarray:
            edited = editor(source, edit)
            right[name][places[id(edit)]] = right_one(edited, source, edit)
            return edited

        return run

    kept = {name: watched(name, editor) for name, editor in editors.items()}
    rows, _ = score_editors(kept, edits, [frames], shown=next(iter(editors)))
    found = {name: summarize([row for row in rows if row["editor"] == name]) for name in editors}
    return {name: {"right": sum(right[name]) / count, **found[name]["lengths"][str(frames)]} for name in editors}


@exit_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = CommandLine(prog="python -m imvideoedit.evaluation.nano.located", description=__doc__)
    parser.add_argument("adapters", nargs="+", help="files, or bundled")
    parser.add_argument("--frames", type=int, default=17, help="default: 17")
    parser.add_argument("--given", choices=("exact", "source"), default="source", help="default: source, see above")
    parser.add_argument("--output", type=Path, help="of the scores, .json")
    given = parser.parse_args(argv)
    if given.frames < 1:
        raise UserError(f"--frames is {given.frames}; it must be at least 1")
    editors: dict[str, Editor] = {"copy": copy_source}
    for adapter in given.adapters:
        pipeline = EditPipeline.from_pretrained(adapter=adapter)
        if not pipeline.backbone.is_nano:
            raise UserError(f"{adapter} is of {pipeline.backbone.name}; these edits are of the nano world")
        editors[str(adapter)] = located_editor(pipeline, given.given)
    found = score_located(editors, given.frames)
    for name, own in found.items():
        low, high = own["interval"]
        say(f"{name}: {own['overall']:.1f} ({low:.1f} to {high:.1f}); the right one in {own['right']:.0%}")
    if given.output is not None:
        write_json(given.output, found)


if __name__ == "__main__":
    main()
