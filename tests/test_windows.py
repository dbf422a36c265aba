"""Windows over a long video cover it, agree where they overlap, and leave a short one alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imvideoedit.editing.windows import blend_weights, blended, plan_windows

sizes = {"frames": st.integers(1, 300), "length": st.integers(1, 40), "overlap": st.integers(0, 60)}


@given(**sizes)
def test_windows_cover_every_frame_and_overlap_as_asked(frames, length, overlap):
    windows = plan_windows(frames, length, overlap)
    assert windows[0].start == 0 and windows[-1].stop == frames
    assert all(window.stop - window.start == min(frames, length) for window in windows)
    for left, right in zip(windows, windows[1:], strict=False):
        assert left.start < right.start <= left.stop - min(overlap, length - 1)


@given(**sizes)
def test_weights_add_up_to_one_and_none_is_lost(frames, length, overlap):
    windows = plan_windows(frames, length, overlap)
    total = torch.zeros(frames)
    for window, weight in zip(windows, blend_weights(windows), strict=True):
        assert (weight > 0).all()
        total[window] += weight
    torch.testing.assert_close(total, torch.ones(frames))


def test_a_window_fades_where_the_next_one_begins():
    first, second = blend_weights([slice(0, 6), slice(2, 8)])
    assert first.tolist() == pytest.approx([1, 1, 0.875, 0.625, 0.375, 0.125])
    assert second.tolist() == pytest.approx([0.125, 0.375, 0.625, 0.875, 1, 1])


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 9))
def test_a_velocity_of_each_frame_alone_is_that_of_the_whole(frames, length, overlap):
    x, sigma = torch.randn(1, 2, frames, 3, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5])
    windows, seen = plan_windows(frames, length, overlap), []
    velocity = blended([lambda part, s: part.sin() * s] * len(windows), windows, lambda: seen.append(1))
    torch.testing.assert_close(velocity(x, sigma), x.sin() * sigma)
    assert len(seen) == len(windows)


def test_what_is_not_video_belongs_to_all_windows_alike():
    windows = plan_windows(6, 3, 1)
    x = {"video": torch.randn(1, 2, 6, 3, 3), "tokens": torch.randn(1, 4, 5)}
    asked = []

    def of_window(number):
        def velocity(part, sigma):
            asked.append(part["tokens"])
            return {"video": part["video"].sin(), "tokens": part["tokens"] + number}

        return velocity

    velocity = blended([of_window(number) for number in range(len(windows))], windows)(x, torch.tensor([0.5]))
    assert len(windows) == 3 and all(torch.equal(tokens, x["tokens"]) for tokens in asked)
    torch.testing.assert_close(velocity["tokens"], x["tokens"] + 1)
    torch.testing.assert_close(velocity["video"], x["video"].sin())


def test_one_window_is_handed_through():
    result = torch.randn(1, 2, 5, 3, 3)
    velocity = blended([lambda part, s: result], plan_windows(5, 8, 2))
    assert velocity(torch.zeros(1, 2, 5, 3, 3), torch.ones(1)) is result
