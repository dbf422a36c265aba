"""The source's own pixels where nothing changed, the edit where something did."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imvideoedit.common.errors import Note, UserError
from imvideoedit.editing.compositing import BLOCK, RAMP, REACH, blend, change_mask, composite_source
from imvideoedit.editing.sampling_config import SamplingConfig

LEVEL = 14.0


def noisy(clip: np.ndarray, amplitude: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-amplitude, amplitude + 1, clip.shape)
    return (clip.astype(np.int16) + noise).clip(0, 255).astype(np.uint8)


def grey(frames: int = 5, size: int = 64) -> np.ndarray:
    return np.full((frames, size, size, 3), 120, np.uint8)


def test_small_errors_give_the_source_back_and_a_real_change_stays():
    source, edited = grey(), noisy(grey(), 9)
    edited[:, 20:44, 20:44] = (250, 20, 20)
    kept = blend(source, edited, change_mask(source, edited, LEVEL))
    assert np.array_equal(kept[:, 26:38, 26:38], edited[:, 26:38, 26:38])
    assert np.array_equal(kept[:, :8], source[:, :8]) and np.array_equal(kept[:, :, 56:], source[:, :, 56:])
    assert (edited[:, :8] != source[:, :8]).any()


@settings(max_examples=25, deadline=None)
@given(difference=st.integers(0, 120), level=st.floats(1, 60))
def test_an_even_difference_counts_by_its_size(difference, level):
    source = grey(3, 16)
    mask = change_mask(source, source + np.uint8(difference), level)
    assert mask.dtype == np.float32 and mask.shape == (3, 16, 16)
    assert mask.min() == pytest.approx(mask.max(), abs=1e-4)
    if difference <= level:
        assert mask.max() < 1e-4
    if difference >= RAMP * level:
        assert mask.min() > 1 - 1e-4


def test_a_mask_of_any_size_spreads_over_the_frame():
    source, edited = grey(2, 40), grey(2, 40) + np.uint8(100)
    mask = np.zeros((2, 4, 4), np.float32)
    mask[:, :, 2:] = 1
    mixed = blend(source, edited, mask)
    assert np.array_equal(mixed[:, :, :12], source[:, :, :12]) and np.array_equal(mixed[:, :, 28:], edited[:, :, 28:])
    assert (np.diff(mixed[0, 0, :, 0].astype(int)) >= 0).all()


@pytest.mark.parametrize("frames", [1, 3, BLOCK + REACH - 1, BLOCK + REACH, 2 * BLOCK + 3 * REACH + 1])
def test_a_stream_keeps_what_the_whole_video_would(frames):
    source = np.random.default_rng(1).integers(0, 256, (frames, 24, 20, 3), np.uint8)
    edited = noisy(source, 40, seed=2)
    edited[frames // 2 :, 4:12] //= 2
    whole = blend(source, edited, change_mask(source, edited, LEVEL))
    assert np.array_equal(np.stack(list(composite_source(zip(source, source, edited, strict=True), LEVEL))), whole)


def test_the_pipeline_keeps_what_the_edit_left_alone(bundled_pipeline):
    source = np.full((1, 96, 64, 3), (90, 90, 120), np.uint8)
    free = bundled_pipeline(source, "turn it into natural style", steps=2, keep=0).frames
    kept = bundled_pipeline(source, "turn it into natural style", steps=2, keep=255).frames
    assert not np.array_equal(free, source) and np.array_equal(kept, source)


@pytest.mark.parametrize("keep", [-1.0, 300.0])
def test_a_level_out_of_range_is_named(bundled_pipeline, keep):
    with pytest.raises(UserError, match="keep"):
        bundled_pipeline(grey(1), "anything", keep=keep)
    with pytest.raises(UserError, match="keep"):
        SamplingConfig(keep=keep)


@pytest.mark.parametrize(("added", "noted"), [(3, True), (90, False)])
def test_an_edit_that_keeps_every_pixel_says_so(added, noted):
    source = np.full((20, 24, 24, 3), 100, np.uint8)
    views = zip(source, source, source + np.uint8(added), strict=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frames = np.stack(list(composite_source(views, 14.0)))
    assert np.array_equal(frames, source) == noted
    said = [str(each.message) for each in caught if issubclass(each.category, Note)]
    assert len(said) == noted and all("keep=14" in words and "\n" not in words for words in said)
