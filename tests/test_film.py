"""Clips filmed from stills: alike for source and target, still where asked, and moving as what they show says."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imvideoedit.common.errors import UserError
from imvideoedit.data.film import FINER, Film, difference, draw_film
from imvideoedit.edit_batch import Input
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.nano.encoded import PairSet, encoded_pairs
from imvideoedit.nano.inputs import Preparation
from imvideoedit.nano.pairs import NanoPairs
from imvideoedit.wan.backbone import load_backbone
from imvideoedit.world.edits import sample_edit
from imvideoedit.world.grammar import describe, without_motion
from imvideoedit.world.scenes import MOTIONS


class Guided(PredictUpdate):
    name = "guided"
    inputs = (
        Input("first_frame", "image", from_target=True),
        Input("mask", "mask"),
        Input("reference", "image", "raw"),
        Input("source_prompt", "text"),
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_source_and_target_stay_aligned_to_the_pixel(seed):
    rng = np.random.default_rng(seed)
    source = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
    target = source.copy()
    target[10:20, 30:40] = 255 - target[10:20, 30:40]
    film = draw_film(rng, 9, (24, 24), difference(source, target))
    filmed, edited = film.of(source), film.of(target)
    touched = film.of((source != target).astype(np.uint8) * 255).max(-1) > 0
    apart = np.abs(filmed.astype(int) - edited).max(-1)
    assert (apart[~touched] <= 1).all(), "more than a share of a pixel too small to be rounded up"
    assert not touched.any() or apart.max() > 10


def test_a_pan_shows_the_still_moved_by_whole_pixels():
    still = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    height, width = 16 * FINER, 16 * FINER
    x = (np.arange(width) + 0.5) / (48 * FINER)
    y = (np.arange(height) + 0.5) / (32 * FINER)
    here = np.stack(np.broadcast_arrays(x[None], y[:, None]), -1)
    points = np.stack([here + np.array([frame / 48, 2 * frame / 32]) for frame in range(5)]).astype(np.float32)
    for frame, picture in enumerate(Film(points).of(still)):
        first = Film(points[:1]).of(np.roll(still, (-2 * frame, -frame), (0, 1)))[0]
        assert np.abs(picture[1:-1, 1:-1].astype(int) - first[1:-1, 1:-1]).max() <= 1


@pytest.mark.parametrize("seed", range(5))
def test_a_held_film_does_not_move_and_begins_with_about_the_whole_still(seed):
    still = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    held = draw_film(np.random.default_rng(seed), 9, (32, 32), still=True)
    clip = held.of(still)
    assert (clip == clip[:1]).all()
    moving = draw_film(np.random.default_rng(seed), 9, (32, 32))
    assert np.allclose(moving.points[0], held.points[0], atol=0.41), "only what a piece leaves behind may differ"
    span = held.points[0].reshape(-1, 2)
    assert (span.min(0) >= 0).all() and (span.max(0) <= 1).all() and (np.ptp(span, axis=0) > 0.8).all()


def test_most_films_move():
    moving = [np.ptp(draw_film(np.random.default_rng(seed), 9, (16, 16)).points, axis=0).max() for seed in range(60)]
    assert sum(motion > 0.01 for motion in moving) > 40


def test_texts_of_films_say_no_motion_and_nothing_else_changes():
    for seed in range(30):
        scene = sample_edit(np.random.default_rng(seed), "train").target
        text = describe(scene)
        stilled = without_motion(text)
        assert not any(motion in stilled for motion in MOTIONS if motion != "still")
        assert "static camera" in stilled and stilled.count("still") == len(scene.things)
        assert without_motion(stilled) == stilled and len(stilled.split(",")) == len(text.split(","))
    assert without_motion("move the camera closer") == "move the camera closer"


def test_an_example_has_every_input_of_the_filmed_clip():
    pairs = PairSet(3, 4, "train", 32, frames=5, preparation=Preparation.of(Guided(), film=True))
    for index in range(4):
        example = pairs.example(index)
        assert example["source"].shape == example["target"].shape == (5, 32, 32, 3)
        assert (example["first_frame"] == example["target"][:1]).all()
        assert example["mask"].shape == (5, 32, 32) and set(np.unique(example["mask"])) <= {0, 255}
        assert example["reference"].shape == (1, 32, 32, 3)
        assert example["prompt"] == without_motion(pairs.pair(index)[1])
        assert example["source_prompt"] == without_motion(pairs.pair(index)[0].source_prompt)
        again = pairs.example(index)
        assert all(np.array_equal(example[name], again[name]) for name in example)
    assert not np.array_equal(pairs.example(0, 1)["source"], pairs.example(0)["source"])


def test_another_view_is_filmed_without_motion():
    views = PairSet(3, 200, "train", 32, frames=5, preparation=Preparation(film=True))
    index = next(i for i in range(200) if views.pair(i)[0].task == "camera_viewpoint")
    clip = views.example(index)["target"]
    assert (clip == clip[:1]).all()


def test_films_are_encoded_without_labels_and_under_keys_of_their_own():
    backbone = load_backbone("nano", device="cpu")
    film = PairSet(3, 2, "train", 32, frames=5, preparation=Preparation(film=True))
    exact = PairSet(3, 2, "train", 32, frames=5)
    encoded = encoded_pairs(None, backbone, film)
    assert encoded.source_NCFHW.shape[2] == 2 and encoded.labels_NFhwA is None
    assert not encoded.batch([0, 1]).labels
    assert not set(film.keys("a")) & set(exact.keys("a"))
    assert not torch.equal(encoded.source_NCFHW, encoded_pairs(None, backbone, exact).source_NCFHW)


def test_a_film_of_one_frame_is_refused():
    with pytest.raises(UserError, match="data.frames is 1"):
        NanoPairs(film=True)
