"""Pretext tasks on the source: undone bit for bit, drawn by their ratios, never on the target."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from imvideoedit.methods.motion_pretexts import (
    RATIOS,
    SENTENCES,
    TUBES,
    draw_order,
    draw_task,
    shuffled,
    sped_up,
    with_pretext,
    without_cube,
)
from imvideoedit.methods.sama import Sama


def video(frames=9, height=6, width=8, seed=0):
    return np.random.default_rng(seed).integers(1, 256, (frames, height, width, 3)).astype(np.uint8)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([4, 5, 9, 16, 17]))
def test_a_shuffle_keeps_every_pixel_and_its_inverse_restores_the_video(seed, frames):
    clip, order = video(frames, seed=seed), draw_order(np.random.default_rng(seed))
    changed = shuffled(clip, order)
    assert sorted(order) == list(range(TUBES)) and not np.array_equal(order, np.arange(TUBES))
    assert not np.array_equal(changed, clip)
    assert np.array_equal(np.sort(changed.reshape(-1, 3), 0), np.sort(clip.reshape(-1, 3), 0))
    assert np.array_equal(shuffled(changed, np.argsort(order)), clip)
    if frames % 2:
        assert np.array_equal(changed[0], clip[0]), "the odd frame stays"


def test_parts_are_halves_of_time_height_and_width():
    clip = np.zeros((5, 4, 4, 3), np.uint8)
    for part, (t, h, w) in enumerate(np.ndindex(2, 2, 2)):
        clip[1 + 2 * t : 3 + 2 * t, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2] = part + 1
    changed = shuffled(clip, [7, 1, 2, 3, 4, 5, 6, 0])
    assert (changed[1:3, :2, :2] == 8).all() and (changed[3:, 2:, 2:] == 1).all() and (changed[0] == 0).all()
    with pytest.raises(ValueError, match="3x4 pixels cannot be halved"):
        shuffled(clip[:, :3], range(8))


@pytest.mark.parametrize("frames", [1, 2, 5, 9, 17, 49, 81])
def test_a_cube_takes_three_tenths_of_the_frames_in_one_block_and_all_their_pixels(frames):
    starts = set()
    for seed in range(30):
        clip = video(frames, 2, 2)
        changed = without_cube(clip, np.random.default_rng(seed))
        black = np.flatnonzero((changed == 0).all((1, 2, 3)))
        assert abs(len(black) - 0.3 * frames) <= 1 and np.array_equal(black, np.arange(black[0], black[-1] + 1))
        rest = np.setdiff1d(np.arange(frames), black)
        assert np.array_equal(changed[rest], clip[rest]) and (clip > 0).all()
        # The target, which is untouched, gives back what is missing.
        restored = changed.copy()
        restored[black] = clip[black]
        assert np.array_equal(restored, clip)
        starts.add(black[0])
    assert len(starts) > 1 or frames < 3


def test_twice_the_speed_takes_every_other_frame_of_the_video_and_what_follows():
    raw = video(17)
    fast = sped_up(raw[:9], raw[9:])
    assert len(fast) == 9 and all(np.array_equal(fast[i], raw[2 * i]) for i in range(9))
    alone = sped_up(raw[:9])
    assert all(np.array_equal(alone[i], raw[min(2 * i, 8)]) for i in range(9)), "the last frame is repeated"
    some = sped_up(raw[:9], raw[9:12])
    assert all(np.array_equal(some[i], raw[min(2 * i, 11)]) for i in range(9))


def test_tasks_are_drawn_one_two_three_four():
    counts = Counter(draw_task(np.random.default_rng((3, row, 0))) for row in range(4000))
    expected = [400, 800, 1200, 1600]
    assert list(RATIOS.values()) == [1, 2, 3, 4]
    assert chisquare([counts[name] for name in ("none", "cube", "speed", "tube")], expected).pvalue > 0.01


@pytest.mark.parametrize("task", RATIOS)
def test_the_tasks_sentence_stands_before_the_caption(task):
    clip = video()
    example = {"source": clip, "target": clip, "prompt": "a red ball", "ahead": video(8, seed=1)}
    changed = with_pretext(example, task, np.random.default_rng(0))
    assert changed["prompt"] == f"{SENTENCES[task]} a red ball".strip()
    assert np.array_equal(changed["source"], clip) == (task == "none") and changed["source"].shape == clip.shape
    assert changed["target"] is clip
    assert with_pretext(example | {"prompt": ""}, task, np.random.default_rng(0))["prompt"] == SENTENCES[task]


def test_only_plain_clips_of_the_first_stage_change_by_the_seed_alone_and_their_target_never():
    first, second = Sama(pretext=True), Sama()
    clip = video()
    plain = {"source": clip, "target": clip.copy(), "prompt": "x", "ahead": video(8, seed=1)}
    tasks = Counter()
    for epoch in range(40):
        made, again = (first.transform(dict(plain), np.random.default_rng((0, 7, epoch))) for _ in range(2))
        assert made["prompt"] == again["prompt"] and np.array_equal(made["source"], again["source"])
        assert np.array_equal(made["target"], clip) and made.keys() == plain.keys() - {"ahead"}
        tasks[made["prompt"]] += 1
    assert len(tasks) == 4
    pair = plain | {"target": video(seed=2)}
    still = {"source": clip[:1], "target": clip[:1], "prompt": "x"}
    for example in (pair, still):
        kept = first.transform(dict(example), np.random.default_rng(0))
        assert np.array_equal(kept["source"], example["source"]) and kept["prompt"] == "x"
    assert first.changes_examples and first.looks_ahead
    assert not second.changes_examples and not second.looks_ahead, "the second stage changes none"
    assert np.array_equal(second.transform(dict(plain), np.random.default_rng(0))["source"], clip)
