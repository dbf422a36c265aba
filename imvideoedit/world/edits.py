"""The paper's ten tasks (appendix B) as exact operations on nano scenes: every edit has an exact answer."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from imvideoedit.world import grammar
from imvideoedit.world.inputs import first_frame, mask, reference
from imvideoedit.world.render import render
from imvideoedit.world.scenes import (
    BACKGROUND_COLORS,
    CREATURE_KINDS,
    DIRECTIONS,
    LOCATIONS,
    MATERIALS,
    OBJECT_COLORS,
    PATTERNS,
    RIGID_KINDS,
    STATES,
    STYLES,
    TEMPERATURES,
    TRAIN_PAIRS,
    VIEWS,
    Scene,
    cell_centre,
    is_held_out,
    sample_scene,
    sample_thing,
)
from imvideoedit.world.tasks import TASKS

OFFERS = {"first_frame": "image", "mask": "mask", "reference": "image", "source_prompt": "text"}
"""Names and kinds of what :meth:`Edit.inputs` gives."""


@dataclass(frozen=True)
class Edit:
    """One exact edit: scenes before and after, and the instruction that leads from one to the other."""

    task: str
    source: Scene
    target: Scene
    instruction: str

    @property
    def source_prompt(self) -> str:
        return grammar.describe(self.source)

    @property
    def edited_prompt(self) -> str:
        return grammar.describe(self.target)

    def render(self, frames: int = 1, size: tuple[int, int] = (64, 64)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``(source, target, mask)``: two ``[F, H, W, 3]`` uint8 videos and the changed pixels, ``[F, H, W]`` bool."""
        source, target = render(self.source, frames, size), render(self.target, frames, size)
        difference = np.abs(source.astype(np.int16) - target).max(-1)
        return source, target, difference > 4

    def inputs(self, frames: int = 1, size: tuple[int, int] = (64, 64)) -> dict[str, np.ndarray | str]:
        """What the world can tell of this edit besides its instruction, all exact, by the names of ``OFFERS``.

        Returns:
            ``first_frame`` and ``reference``, uint8 ``[H, W, 3]``; ``mask``, bool ``[F, H, W]``, of what is to be
            edited in the source (see :mod:`imvideoedit.world.inputs`); and ``source_prompt``.
        """
        return {
            "first_frame": first_frame(self.target, size),
            "mask": mask(self.source, self.target, frames, size),
            "reference": reference(self.source, self.target, size),
            "source_prompt": self.source_prompt,
        }


def sample_edit(rng: np.random.Generator, split: str, task: str | None = None) -> Edit:
    """A random edit of ``task`` (any, if None) whose scenes belong to ``split`` and differ visibly.

    Raises:
        ValueError: ``task`` is not one of the ten.
    """
    if task is not None and task not in TASKS:
        raise ValueError(f"unknown task {task!r}; the ten are {', '.join(TASKS)}")
    task = task or str(rng.choice(TASKS))
    while True:
        scene = sample_scene(rng, split)
        made = _MAKERS[task](rng, scene, split)
        if made is None:
            continue
        edit = Edit(task, scene, *made)
        if edit.render()[2].mean() > 0.01:
            return edit


def sample_compound(rng: np.random.Generator, split: str, count: int) -> Edit:
    """A random edit of ``count`` edits, each of a random task on the one before's target; its task is ``compound``."""
    edit = sample_edit(rng, split)
    while count > 1:
        task = str(rng.choice(TASKS)) if edit.target.things else "object_addition"
        made = _MAKERS[task](rng, edit.target, split)
        if made is not None:
            target, instruction = made
            edit = Edit("compound", edit.source, target, f"{edit.instruction} and {instruction}")
            count -= 1
    return edit


_Made = tuple[Scene, str] | None


def _other(rng: np.random.Generator, options, current: str) -> str:
    return str(rng.choice([o for o in options if o != current]))


def _subject(rng: np.random.Generator, scene: Scene, split: str) -> int:
    """Index of the thing to edit; in the test split the held-out one, which comes first."""
    return 0 if split == "test" else int(rng.integers(len(scene.things)))


def _allowed(scene: Scene, index: int, color: str, kind: str, split: str) -> bool:
    """Whether a changed thing has a unique name, and in the training split a training composition."""
    others = {(t.color, t.kind) for i, t in enumerate(scene.things) if i != index}
    return (color, kind) not in others and (split == "test" or not is_held_out(color, kind))


def _style_transfer(rng, scene: Scene, split: str) -> _Made:
    style = _other(rng, STYLES, scene.style)
    return replace(scene, style=style), f"turn it into {style} style"


def _color_texture(rng, scene: Scene, split: str) -> _Made:
    index = _subject(rng, scene, split)
    thing = scene.things[index]
    if rng.random() < 0.4:
        material = _other(rng, MATERIALS, thing.material)
        return scene.with_thing(index, material=material), f"make the {grammar.name(thing)} {material}"
    color = _other(rng, OBJECT_COLORS, thing.color)
    if not _allowed(scene, index, color, thing.kind, split):
        return None
    return scene.with_thing(index, color=color), f"make the {grammar.name(thing)} {color}"


def _object_addition(rng, scene: Scene, split: str) -> _Made:
    free = [place for place in LOCATIONS if place not in {t.location for t in scene.things}]
    used = {(t.color, t.kind) for t in scene.things}
    pairs = tuple(p for p in TRAIN_PAIRS if p not in used)
    if len(scene.things) > 2:
        return None
    place = str(rng.choice(free))
    x, y = cell_centre(place)
    thing = replace(sample_thing(rng, pairs, place), x=x, y=y, phase=0.0)
    return replace(scene, things=(*scene.things, thing)), f"add {grammar.describe_thing(thing)}"


def _object_removal(rng, scene: Scene, split: str) -> _Made:
    index = _subject(rng, scene, split)
    rest = tuple(t for i, t in enumerate(scene.things) if i != index)
    return replace(scene, things=rest), f"remove the {grammar.name(scene.things[index])}"


def _replacement(kinds: tuple[str, ...]) -> Callable:
    def make(rng, scene: Scene, split: str) -> _Made:
        index = _subject(rng, scene, split)
        thing = scene.things[index]
        if thing.kind not in kinds:
            return None
        kind = _other(rng, kinds, thing.kind)
        if not _allowed(scene, index, thing.color, kind, split):
            return None
        return scene.with_thing(index, kind=kind), f"replace the {grammar.name(thing)} with a {kind}"

    return make


def _camera_viewpoint(rng, scene: Scene, split: str) -> _Made:
    view = _other(rng, VIEWS, scene.view)
    return replace(scene, view=view), grammar.VIEW_INSTRUCTIONS[view]


def _local_attribute(rng, scene: Scene, split: str) -> _Made:
    index = _subject(rng, scene, split)
    thing = scene.things[index]
    state = _other(rng, STATES, thing.state)
    return scene.with_thing(index, state=state), grammar.state_instruction(thing, state)


def _relighting(rng, scene: Scene, split: str) -> _Made:
    target = replace(scene, temperature=str(rng.choice(list(TEMPERATURES))), direction=str(rng.choice(DIRECTIONS)))
    if target == scene:
        return None
    return target, f"change the light to {grammar.describe_light(target)}"


def _background_replacement(rng, scene: Scene, split: str) -> _Made:
    target = replace(
        scene,
        background=_other(rng, BACKGROUND_COLORS, scene.background),
        pattern=str(rng.choice(PATTERNS)),
    )
    return target, f"replace the background with {grammar.describe_background(target)}"


_MAKERS: dict[str, Callable] = {
    "style_transfer": _style_transfer,
    "color_texture": _color_texture,
    "object_addition": _object_addition,
    "object_removal": _object_removal,
    "rigid_replacement": _replacement(RIGID_KINDS),
    "nonrigid_replacement": _replacement(CREATURE_KINDS),
    "camera_viewpoint": _camera_viewpoint,
    "local_attribute": _local_attribute,
    "relighting": _relighting,
    "background_replacement": _background_replacement,
}
