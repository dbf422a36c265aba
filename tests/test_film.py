"""Clips filmed from stills: alike for source and target, still where asked, and moving as what they show says."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imvideoedit.common.errors import UserError
from imvideoedit.data.film import Film, Piece, developed, difference, draw_film, points
from imvideoedit.edit_batch import Input
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.nano.batches import Clips
from imvideoedit.nano.encoded import encoded_pairs
from imvideoedit.nano.inputs import Preparation
from imvideoedit.nano.pair_set import PairSet
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
    film = draw_film(rng, 9, difference(source, target))
    filmed, edited = film.of(source, (24, 24)), film.of(target, (24, 24))
    touched = film.of((source != target).astype(np.uint8) * 255, (24, 24)).max(-1) > 0
    apart = np.abs(filmed.astype(int) - edited).max(-1)
    assert (apart[~touched] <= 1).all(), "more than a share of a pixel too small to be rounded up"
    assert not touched.any() or apart.max() > 10


def test_a_pan_shows_the_still_moved_by_whole_pixels():
    still = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    frames = np.arange(5)[:, None]
    film = Film(np.array([[0.5, 0.4]]) + frames * np.array([1 / 48, 2 / 48]), np.full(5, 1 / 3))
    first = Film(film.centre_F2[:1], film.side_F[:1])
    for frame, picture in enumerate(film.of(still, (16, 16))):
        rolled = first.of(np.roll(still, (-2 * frame, -frame), (0, 1)), (16, 16))[0]
        assert np.abs(picture.astype(int) - rolled).max() <= 1


def test_films_developed_together_are_those_developed_alone():
    rng = np.random.default_rng(0)
    films = [draw_film(rng, 5) for _ in range(20)]
    stills = torch.from_numpy(rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8))
    together = developed(films, stills, (16, 16))
    for film, still, clip in zip(films, stills, together, strict=True):
        assert np.array_equal(film.of(still.numpy(), (16, 16)), clip.numpy())


def test_a_piece_travels_and_leaves_another_part_behind():
    still = np.zeros((40, 40, 3), np.uint8)
    still[18:22, 18:22] = 200
    path = np.array([[0.0, 0.0], [0.25, 0.0]])
    whole = np.full((2, 2), 0.5), np.ones(2)
    for left in (None, np.array([-0.4, 0.0])):
        clip = Film(*whole, (Piece(np.full(2, 0.5), np.full(2, 0.1), path, left),)).of(still, (40, 40))
        assert (clip[1, 19:21, 29:31] == 200).all(), "it has travelled"
        assert (clip[1, 19:21, 19:21] == (200 if left is None else 0)).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_film_begins_with_about_the_whole_still(seed):
    first = points([draw_film(np.random.default_rng(seed), 1)], (32, 32))[0, 0].reshape(-1, 2).numpy()
    assert (np.ptp(np.quantile(first, [0.1, 0.9], axis=0), axis=0) > 0.6).all()
    moving = points([draw_film(np.random.default_rng(seed), 9)], (32, 32))[0, 0].reshape(-1, 2).numpy()
    assert np.allclose(np.median(moving, 0), np.median(first, 0), atol=0.3)


def test_most_films_move():
    moving = [
        np.ptp(points([draw_film(np.random.default_rng(seed), 9)], (16, 16))[0], axis=0).max() for seed in range(60)
    ]
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


def test_films_show_no_other_view_and_the_same_pairs_otherwise():
    films = PairSet(3, 100, "train", 32, frames=5, preparation=Preparation(film=True))
    exact = PairSet(3, 100, "train", 32, frames=5)
    others = [index for index in range(100) if exact.pair(index)[0].task == "camera_viewpoint"]
    assert others
    for index in range(100):
        edit, text = films.pair(index)
        assert edit.source.view == edit.target.view
        assert index in others or (edit, text) == exact.pair(index) or edit.task == "camera_viewpoint"


def test_films_are_encoded_without_labels_and_under_keys_of_their_own():
    backbone = load_backbone("nano", device="cpu")
    film = PairSet(3, 2, "train", 32, frames=5, preparation=Preparation(film=True))
    exact = PairSet(3, 2, "train", 32, frames=5)
    encoded = encoded_pairs(None, backbone, film)
    assert encoded.source_NCFHW.shape[2] == 2 and encoded.labels_NFhwA is None
    assert not encoded.batch([0, 1]).labels
    assert not set(film.keys("a")) & set(exact.keys("a"))
    assert not torch.equal(encoded.source_NCFHW, encoded_pairs(None, backbone, exact).source_NCFHW)


@pytest.mark.parametrize("wrong", [{"frames": 1}, {"frames": 16}, {"pairs": 0}, {"batch_size": 0}, {"share": 0.0}])
def test_impossible_clips_are_refused_by_name(wrong):
    with pytest.raises(UserError, match=f"{next(iter(wrong))} is"):
        Clips(**wrong)


def test_shares_of_clips_add_up_to_at_most_one():
    with pytest.raises(UserError, match=r"0\.6, 0\.6"):
        NanoPairs(clips=[Clips(share=0.6), Clips(frames=49, share=0.6)])
