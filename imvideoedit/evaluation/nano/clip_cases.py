"""Nano clips with an exact edit for LoRA-Edit: a moving thing that changes, and a thing that is hidden at first.

Shapes: F frames, H W pixels.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import maximum_filter

from imvideoedit.world.edits import Edit, sample_edit
from imvideoedit.world.grammar import describe
from imvideoedit.world.scenes import OBJECT_COLORS, TEST_PAIRS, TRAIN_PAIRS, Scene, Thing, plain_scene

TASKS = ("color_texture", "rigid_replacement", "nonrigid_replacement", "local_attribute")
FRAMES, SIZE, MARGIN = 17, (64, 64), 3
LATE = slice(12, FRAMES)  # the last third
LEAST = 0.02  # of a clip's pixels


@dataclass(frozen=True)
class Case:
    """A clip with its exact edit.

    Attributes:
        source, target: uint8 ``[F, H, W, 3]``.
        changed: bool ``[F, H, W]``, where they differ.
        mask: uint8 ``[F, H, W]``, white where the edit is.
    """

    task: str
    source: np.ndarray
    target: np.ndarray
    changed: np.ndarray
    mask: np.ndarray
    source_prompt: str
    edited_prompt: str


def sample_case(rng: np.random.Generator, task: str) -> Case:
    """A random case of the test split whose edited thing moves."""
    while True:
        edit = sample_edit(rng, "test", task)
        if edit.source.things[0].motion != "still" and np.mean(edit.inputs(1, SIZE)["mask"] != 0) > LEAST:
            return case_of(edit)


def sample_hidden_case(rng: np.random.Generator) -> Case:
    """A case whose recoloured thing is behind another one at first, which moves away.

    The first frame is that of the clip, and the prompts tell of the front thing alone: only a later frame can show the
    edit.
    """
    while True:
        scene = plain_scene(rng, "test")
        (front_kind, front_color), (color, kind) = _pick(rng, TRAIN_PAIRS)[::-1], _pick(rng, TEST_PAIRS)
        x, y = float(rng.uniform(0.35, 0.65)), float(rng.uniform(0.3, 0.7))
        motion = f"moving {rng.choice(('left', 'right', 'up', 'down'))}"
        front = Thing(front_kind, front_color, size="large", motion=motion, x=x, y=y)
        source = replace(scene, things=(Thing(kind, color, size="small", x=x, y=y), front))
        other = str(rng.choice([each for each in OBJECT_COLORS if each not in (color, front_color)]))
        case = case_of(Edit("hidden_thing", source, source.with_thing(0, color=other), "recolour the hidden thing"))
        if not case.changed[0].any() and case.changed[LATE].mean() > LEAST:
            told = describe(Scene(scene.background, scene.pattern, (front,)))
            return replace(case, source_prompt=told, edited_prompt=told)


def case_of(edit: Edit) -> Case:
    """The case of an edit."""
    source, target, changed = edit.render(FRAMES, SIZE)
    shown = np.asarray(edit.inputs(FRAMES, SIZE)["mask"]).astype(np.uint8) * 255
    mask = maximum_filter(shown, (1, 2 * MARGIN + 1, 2 * MARGIN + 1), mode="constant")
    return Case(edit.task, source, target, changed, mask, edit.source_prompt, edit.edited_prompt)


def _pick(rng: np.random.Generator, pairs: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    return pairs[int(rng.integers(len(pairs)))]
