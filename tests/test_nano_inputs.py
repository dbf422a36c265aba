"""What the nano world tells of an edit besides its text: exact, and where a method asks for it."""

from dataclasses import replace

import numpy as np
import pytest

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import Input
from imvideoedit.nano.inputs import exact_inputs, offered
from imvideoedit.world.edits import OFFERS, Edit, sample_compound, sample_edit
from imvideoedit.world.render import render, visible_share
from imvideoedit.world.scenes import OBJECT_COLORS, Scene, Thing, sample_scene
from imvideoedit.world.tasks import TASKS

SIZE = (48, 64)
GLOBAL = ("style_transfer", "camera_viewpoint", "relighting")
LOCAL = ("color_texture", "object_removal", "rigid_replacement", "nonrigid_replacement", "local_attribute")


def edit_of(source: Scene, target: Scene, task: str = "color_texture") -> Edit:
    return Edit(task, source, target, "")


def plain(scene: Scene, **changes) -> Scene:
    """Nothing but bodies: no light, halo or mark, so that a pixel has an object's colour where it shows it."""
    things = tuple(replace(thing, state="plain", material="matte", color="red") for thing in scene.things)
    return replace(scene, things=things, temperature="day", direction="front", **changes)


def edits(task: str, count: int = 4) -> list[Edit]:
    rng = np.random.default_rng(TASKS.index(task))
    return [sample_edit(rng, "test", task) for _ in range(count)]


@pytest.mark.parametrize("style", ["natural", "sepia", "pixel", "watercolor"])
def test_the_mask_is_where_pixels_change_with_the_objects_colour(style):
    rng, checked = np.random.default_rng(1), 0
    for _ in range(12):
        scene = plain(sample_scene(rng, "test"), style=style)
        for index in range(len(scene.things)):
            target = scene.with_thing(index, color="cyan")
            mask = edit_of(scene, target).inputs(5, SIZE)["mask"]
            changed = (render(scene, 5, SIZE) != render(target, 5, SIZE)).any(-1)
            assert mask.shape == changed.shape and mask.dtype == bool
            assert not (changed & ~mask).any()
            if style == "natural":
                # What the mask has besides changes by less than a grey level.
                step = np.abs(np.subtract(OBJECT_COLORS["red"], OBJECT_COLORS["cyan"])).max()
                assert (visible_share(scene, index, 5, SIZE)[mask & ~changed] * step * 255 < 1).all()
            checked += changed.sum()
    assert checked > 20_000


def test_the_mask_of_a_box_is_the_box_and_not_what_covers_it():
    box, ball = Thing("box", "red", x=0.5, y=0.5), Thing("ball", "blue", x=0.5, y=0.5, size="small")
    source = Scene("grey", "plain", (box, ball))
    mask = edit_of(source, source.with_thing(0, color="green")).inputs(1, (64, 64))["mask"][0]
    offset = np.abs((np.arange(64) + 0.5) / 64 - 0.5)
    square = np.maximum(offset[:, None], offset[None, :]) < 0.82 * 0.17 + 0.5 / 64
    distance = np.hypot(offset[:, None], offset[None, :])
    hidden = distance <= 0.95 * 0.13 - 0.5 / 64 - 1e-6
    assert np.array_equal(mask, square & ~hidden) and hidden.sum() > 100


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_the_mask_of_what_it_edits_in_the_source(task):
    for edit in edits(task):
        mask = edit.inputs(5, SIZE)["mask"]
        before, after = edit.source.things, edit.target.things
        if task in GLOBAL:
            assert mask.all()
        elif task == "background_replacement":
            covered = 1 - visible_share(edit.source, None, 5, SIZE)
            assert mask[covered == 0].all() and mask.any()
            if edit.source.style == "natural":
                assert np.array_equal(mask, covered < 1)
        else:
            shown = edit.target if task == "object_addition" else edit.source
            other = before if task == "object_addition" else after
            (index,) = (number for number, thing in enumerate(shown.things) if thing not in other)
            mixing = shown.style in ("pixel", "watercolor")
            bodies = plain(shown, style=shown.style if mixing else "natural")
            pair = (render(scene, 5, SIZE) for scene in (bodies, bodies.with_thing(index, color="cyan")))
            changed = np.not_equal(*pair).any(-1)
            assert not (changed & ~mask).any() and mask.sum() < 1.05 * changed.sum() + 16 and changed.any()


def test_masks_move_with_their_objects():
    scene = Scene("grey", "plain", (Thing("ball", "red", motion="moving right", x=0.3),))
    mask = edit_of(scene, scene.with_thing(0, color="blue")).inputs(9, (64, 64))["mask"]
    columns = [np.nonzero(frame.any(0))[0].mean() for frame in mask]
    assert np.allclose(np.diff(columns), 0.016 * 64, atol=0.6) and columns[8] - columns[0] > 7


def test_where_nothing_is_edited_the_mask_is_empty_and_several_edits_add_up():
    scene = edits("color_texture")[0].source
    assert not Edit("identity", scene, scene, "").inputs(5, SIZE)["mask"].any()
    two = plain(Scene("grey", "plain", (Thing("box", "red", x=0.2), Thing("ball", "red", x=0.8))))
    both = two.with_thing(0, color="blue").with_thing(1, kind="star")
    first, second = (
        edit_of(two, scene).inputs(1, SIZE)["mask"]
        for scene in (two.with_thing(0, color="blue"), two.with_thing(1, kind="star"))
    )
    assert np.array_equal(edit_of(two, both).inputs(1, SIZE)["mask"], first | second)
    removed = replace(both, things=both.things[1:])
    assert np.array_equal(edit_of(two, removed).inputs(1, SIZE)["mask"], first | second)
    for seed in range(6):
        given = sample_compound(np.random.default_rng(seed), "train", 3).inputs(5, SIZE)
        assert given["mask"].shape == (5, *SIZE)


@pytest.mark.parametrize("task", TASKS)
def test_the_first_frame_is_the_exact_answers(task):
    for edit in edits(task, 2):
        exact = edit.render(5, SIZE)[1]
        assert np.array_equal(edit.inputs(5, SIZE)["first_frame"], exact[0])
        assert edit.inputs(1, SIZE)["source_prompt"] == edit.source_prompt


@pytest.mark.parametrize("task", TASKS)
def test_the_reference_is_the_edited_object_alone_or_the_target(task):
    for edit in edits(task):
        shown = edit.inputs(5, SIZE)["reference"]
        if task in (*GLOBAL, "background_replacement"):
            assert np.array_equal(shown, edit.render(5, SIZE)[1][0])
            continue
        source, target = set(edit.source.things), set(edit.target.things)
        (thing,) = target - source or source - target
        alone = Scene("grey", "plain", (replace(thing, x=0.5, y=0.5, motion="still"),))
        assert np.array_equal(shown, render(alone, 1, SIZE)[0])


def test_inputs_are_told_by_their_names_kinds_and_those_of_the_target():
    edit = edits("object_removal")[0]
    given = exact_inputs(
        edit,
        [Input("mask", "mask"), Input("start", "image", from_target=True), Input("depth", "video", required=False)],
        5,
        SIZE,
    )
    assert list(given) == ["mask", "start"]
    assert np.array_equal(given["start"], edit.render(5, SIZE)[1][0])
    assert offered([Input("mask", "video", required=False)]) == {}
    assert exact_inputs(edit, (), 5, SIZE) == {}
    for wanting in (Input("depth", "video"), Input("mask", "video"), Input("face", "image"), Input("pose", "text")):
        with pytest.raises(UserError, match=f"no {wanting.name} .{wanting.kind}.,") as caught:
            offered([wanting])
        assert "\n" not in str(caught.value) and all(name in str(caught.value) for name in OFFERS)
