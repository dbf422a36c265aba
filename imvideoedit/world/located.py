"""Edits whose instruction alone tells which thing is meant: there are two alike, and it names one by its place.

The words of a scene after the edit fit both, so that who reads a description must guess; each has an exact answer.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from imvideoedit.world.edits import Edit
from imvideoedit.world.scenes import (
    LOCATIONS,
    OBJECT_COLORS,
    RIGID_KINDS,
    STATES,
    TEST_PAIRS,
    TRAIN_PAIRS,
    Scene,
    cell_centre,
    is_held_out,
    sample_scene,
    sample_thing,
)

VISIBLE = 0.01  # of the pixels, that an edit changes at least
COUNT, SEED = 40, 4242  # of the fixed set
SAYINGS = ("the {color} {kind} at the {place}", "the {color} thing at the {place}", "the one at the {place}")


def located_edits(count: int = COUNT, seed: int = SEED) -> list[Edit]:
    """The held-out set: as many edits of each of four tasks, in turn."""
    tasks = [*_CHANGES]
    return [sample_located(np.random.default_rng((seed, n)), "test", tasks[n % len(tasks)]) for n in range(count)]


def sample_located(rng: np.random.Generator, split: str, task: str | None = None) -> Edit:
    """A random edit of one of two things alike, which differ by their place alone.

    Args:
        split: of the compositions, ``train`` or ``test``, of which the two are.
        task: one of ``color_texture``, ``object_removal``, ``local_attribute`` and ``rigid_replacement``; any if None.
    """
    task = task or str(rng.choice(list(_CHANGES)))
    while True:
        scene = _twins(rng, split)
        index = int(rng.integers(2))
        thing = scene.things[index]
        saying = str(rng.choice(SAYINGS))
        who = saying.format(color=thing.color, kind=thing.kind, place=thing.location)
        made = _CHANGES[task](rng, scene, index, who, split)
        if made is None:
            continue
        edit = Edit(task, scene, *made)
        if edit.render()[2].mean() > VISIBLE:
            return edit


def mistaken(edit: Edit) -> Scene:
    """What the scene would be after the edit had it been made to the other of the two."""
    meant = next(place for place, thing in enumerate(edit.source.things) if thing not in edit.target.things)
    if len(edit.target.things) < len(edit.source.things):
        return replace(edit.source, things=(edit.source.things[meant],))
    made = edit.target.things[meant]
    return edit.source.with_thing(1 - meant, kind=made.kind, color=made.color, state=made.state)


def _twins(rng: np.random.Generator, split: str) -> Scene:
    """A scene of two things of one colour, kind, material, size and state, still or moving, at two places."""
    scene = sample_scene(rng, "train", (1, 1))
    first, second = (LOCATIONS[place] for place in rng.permutation(len(LOCATIONS))[:2])
    one = sample_thing(rng, TEST_PAIRS if split == "test" else TRAIN_PAIRS, first)
    x, y = cell_centre(second)
    other = replace(one, x=float(x + rng.uniform(-0.08, 0.08)), y=float(y + rng.uniform(-0.08, 0.08)))
    return replace(scene, things=(one, other), view="normal")


Change = tuple[Scene, str] | None


def _other(rng: np.random.Generator, options, current: str) -> str:
    return str(rng.choice([each for each in options if each != current]))


def _recolour(rng, scene: Scene, index: int, who: str, split: str) -> Change:
    thing = scene.things[index]
    color = _other(rng, OBJECT_COLORS, thing.color)
    if split == "train" and is_held_out(color, thing.kind):
        return None
    return scene.with_thing(index, color=color), f"make {who} {color}"


def _remove(rng, scene: Scene, index: int, who: str, split: str) -> Change:
    return replace(scene, things=(scene.things[1 - index],)), f"remove {who}"


def _restate(rng, scene: Scene, index: int, who: str, split: str) -> Change:
    state = _other(rng, STATES, scene.things[index].state)
    given = {"glowing": "a glow", "cracked": "a crack", "smiling": "eyes"}
    text = f"make {who} plain again" if state == "plain" else f"give {who} {given[state]}"
    return scene.with_thing(index, state=state), text


def _reshape(rng, scene: Scene, index: int, who: str, split: str) -> Change:
    thing = scene.things[index]
    kind = _other(rng, RIGID_KINDS, thing.kind)
    if split == "train" and is_held_out(thing.color, kind):
        return None
    return scene.with_thing(index, kind=kind), f"replace {who} with a {kind}"


_CHANGES: dict[str, Callable] = {
    "color_texture": _recolour,
    "object_removal": _remove,
    "local_attribute": _restate,
    "rigid_replacement": _reshape,
}
