"""``python -m imvideoedit.evaluation.suites.template FILE``: 10 tasks × 25 edits, or 60, to be completed with videos.

The paper's benchmark (ImVideoEdit, section 5.1) has 25 videos of each of ten tasks, made with a text-to-video model; it
is not published. This template has the same shape with prompts of our own: 25 scenes, and an edit of every task for
each. ``--layout sixty`` has the shape of MiVE's (section 5.2), not published either: 30 simple edits, a third of them
removals, additions, and changes of texture and colour; and 30 complex ones of people, a third of them of the whole
look, the light, and the background. A row's ``source_prompt`` describes the video to generate or find; put it at
``source`` to complete the manifest.
"""

import importlib.resources
from dataclasses import replace
from pathlib import Path

import yaml

from imvideoedit.common.errors import CommandLine, exit_cleanly
from imvideoedit.common.terminal import say
from imvideoedit.evaluation.edits.manifest import EditRow, write_manifest
from imvideoedit.world.tasks import TASKS

# Subsets with the tasks of their edits, and the scenes: simple ones the first ten, complex ones ten of a person.
SIXTY = {
    "simple": (("object_removal", "object_addition", "color_texture"), range(1, 11)),
    "complex": (("style_transfer", "relighting", "background_replacement"), (1, 2, 4, 5, 6, 8, 11, 16, 19, 23)),
}
SCENE = "{who} {does} {thing} {where}, {extra}, {light}."


def template() -> list[EditRow]:
    """250 rows, task by task; all tasks share the sources ``videos/<scene>.mp4``."""
    text = importlib.resources.files("imvideoedit.evaluation.suites").joinpath("scenes.yaml").read_text("utf-8")
    scenes = yaml.safe_load(text)
    return [_row(number, scene, task) for task in TASKS for number, scene in enumerate(scenes, 1)]


def sixty() -> list[EditRow]:
    """60 rows, ``simple`` and ``complex`` as their tasks; 20 sources."""
    rows = {row.id: row for row in template()}
    return [
        replace(rows[f"{task}_{number:02d}"], id=f"{subset}_{task}_{number:02d}", task=subset)
        for subset, (tasks, numbers) in SIXTY.items()
        for task in tasks
        for number in numbers
    ]


def _row(number: int, scene: dict[str, str], task: str) -> EditRow:
    before = {key: scene[key] for key in ("who", "does", "thing", "where", "extra", "light")}
    instruction, after, ending = _edit(scene, task)
    prompt = _sentence(SCENE.format(**{**before, **after})).replace(", ,", ",")
    return EditRow(
        id=f"{task}_{number:02d}",
        source=Path("videos") / f"scene_{number:02d}.mp4",
        instruction=instruction,
        task=task,
        source_prompt=_sentence(SCENE.format(**before)),
        prompt=prompt + ending,
    )


def _edit(scene: dict[str, str], task: str) -> tuple[str, dict[str, str], str]:
    """Instruction, the scene's parts that it replaces, and the sentence that it adds to the description."""
    who, thing, extra = (_the(scene[key]) for key in ("who", "thing", "extra"))
    attribute, around = scene["attribute"], scene["background"]
    edits: dict[str, tuple[str, dict[str, str], str]] = {
        "style_transfer": (f"Turn the video into {scene['style']} style.", {}, f" In {scene['style']} style."),
        "color_texture": (f"Make {thing} {scene['recolor']}.", {"thing": f"{scene['thing']}, {scene['recolor']},"}, ""),
        "object_addition": (f"Add {scene['add']}.", {}, f" {_sentence(scene['add'])} is there too."),
        "object_removal": (f"Remove {extra}.", {"extra": ""}, ""),
        "rigid_replacement": (f"Replace {thing} with {scene['rigid']}.", {"thing": scene["rigid"]}, ""),
        "nonrigid_replacement": (f"Replace {who} with {scene['nonrigid']}.", {"who": scene["nonrigid"]}, ""),
        "camera_viewpoint": (f"Show the scene {scene['camera']}.", {}, f" Seen {scene['camera']}."),
        "local_attribute": (f"Give {who} {attribute}.", {"who": f"{scene['who']} with {attribute}"}, ""),
        "relighting": (f"Change the light to {scene['relight']}.", {"light": f"in {scene['relight']}"}, ""),
        "background_replacement": (f"Replace the background by {around}.", {"where": f"with {around} all around"}, ""),
    }  # fmt: skip
    return edits[task]


def _the(text: str) -> str:
    """With the definite article."""
    article, _, rest = text.partition(" ")
    return f"the {rest}" if article in ("a", "an") else text


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


@exit_cleanly
def main() -> None:
    """Write the template."""
    parser = CommandLine(prog="python -m imvideoedit.evaluation.suites.template", description=__doc__)
    parser.add_argument("file", type=Path, help="of the manifest, .jsonl")
    layouts = {"paper": template, "sixty": sixty}
    parser.add_argument("--layout", choices=layouts, default="paper", help="default: paper, 10 tasks x 25 edits")
    given = parser.parse_args()
    path, rows = given.file, layouts[given.layout]()
    write_manifest(rows, path)
    sources = {row.source for row in rows}
    say(f"{len(rows)} edits in {path}; put {len(sources)} videos next to it, as its rows name and describe them")


if __name__ == "__main__":
    main()
