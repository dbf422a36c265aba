"""The nano world: what is drawn, what moves, what is held out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imvideoedit.world.render import centre, render
from imvideoedit.world.scenes import (
    KINDS,
    MOTIONS,
    OBJECT_COLORS,
    STYLES,
    TEST_PAIRS,
    TRAIN_PAIRS,
    Scene,
    Thing,
    is_held_out,
    sample_scene,
)


def test_held_out_pairs_cover_every_color_and_kind_and_leave_every_one_to_training():
    assert {c for c, _ in TEST_PAIRS} == {c for c, _ in TRAIN_PAIRS} == set(OBJECT_COLORS)
    assert {k for _, k in TEST_PAIRS} == {k for _, k in TRAIN_PAIRS} == set(KINDS)
    assert not set(TEST_PAIRS) & set(TRAIN_PAIRS)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_splits_are_disjoint_in_compositions(seed):
    train = sample_scene(np.random.default_rng(seed), "train")
    test = sample_scene(np.random.default_rng(seed), "test")
    assert not any(is_held_out(t.color, t.kind) for t in train.things)
    assert is_held_out(test.things[0].color, test.things[0].kind)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 9), st.sampled_from([(64, 64), (48, 80), (65, 33)]))
def test_a_scene_draws_the_same_pixels_each_time_and_frames_do_not_depend_on_the_length(seed, frames, size):
    scene = sample_scene(np.random.default_rng(seed), "train")
    video = render(scene, frames, size)
    assert video.shape == (frames, *size, 3) and video.dtype == np.uint8
    assert np.array_equal(video, render(scene, frames, size))
    assert np.array_equal(video[:1], render(scene, 1, size))


@pytest.mark.parametrize("motion", [m for m in MOTIONS if m != "still"])
def test_motions_move_the_pixels_the_way_they_are_called(motion):
    thing = Thing("ball", "red", motion=motion, phase=0.3)
    time = np.arange(9, dtype=np.float32)
    x, y = centre(thing, time)
    if motion.startswith("moving"):
        direction = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}[motion.split()[1]]
        assert np.allclose([x[8] - x[0], y[8] - y[0]], 8 * 0.016 * np.array(direction), atol=1e-5)
    red = render(Scene("grey", "plain", (thing,)), 9).astype(int)
    reds = (red[..., 0] - red[..., 1]) > 80
    columns = [np.nonzero(frame)[1].mean() / 64 for frame in reds]
    rows = [np.nonzero(frame)[0].mean() / 64 for frame in reds]
    assert np.allclose(columns, x, atol=0.02) and np.allclose(rows, y, atol=0.02)


@pytest.mark.parametrize("kind", ["fish", "worm", "jellyfish", "bird"])
def test_creatures_change_shape_while_rigid_things_do_not(kind):
    def shapes(name):
        video = render(Scene("grey", "plain", (Thing(name, "red"),)), 5).astype(int)
        return (video[..., 0] - video[..., 1]) > 80

    assert any((shapes(kind)[i] != shapes(kind)[0]).sum() > 5 for i in range(1, 5))
    assert all((shapes("star")[i] == shapes("star")[0]).all() for i in range(1, 5))


@pytest.mark.parametrize("style", STYLES)
def test_styles_hold_their_defining_property(style):
    scene = Scene("teal", "checkered", (Thing("star", "orange", "shiny"),), style=style)
    frame = render(scene)[0].astype(int)
    if style == "pixel":
        blocks = frame.reshape(16, 4, 16, 4, 3)
        assert (blocks == blocks[:, :1, :, :1]).all()
    elif style == "noir":
        assert (frame.max(-1) - frame.min(-1)).max() <= 1
    elif style == "sepia":
        assert (frame[..., 0] >= frame[..., 1]).all() and (frame[..., 1] >= frame[..., 2]).all()
    elif style == "poster":
        levels = np.abs(frame[..., None] - np.array([0, 85, 170, 255])).min(-1)
        assert (levels <= 2).mean() > 0.6
    elif style == "watercolor":
        assert frame.min() >= 90


def test_camera_pan_shifts_the_whole_picture():
    scene = Scene("navy", "striped", camera="pan right")
    video = render(scene, 22).astype(int)
    shift = round(21 * 0.006 * 64)
    assert np.abs(video[21][:, : 64 - shift] - video[0][:, shift:]).mean() < 12
    assert np.abs(video[21] - video[0]).mean() > 12
