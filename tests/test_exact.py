"""PSNR against the exact answer."""

import numpy as np
import pytest

from imvideoedit.evaluation.nano.exact import PSNR_CAP, held_out_edits, psnr, region_psnr
from imvideoedit.world.scenes import is_held_out
from imvideoedit.world.tasks import TASKS


def test_psnr_of_a_known_error():
    assert psnr(np.full(10, 25.5**2)) == pytest.approx(20.0)
    assert psnr(np.zeros(3)) == PSNR_CAP
    assert np.isnan(psnr(np.zeros(0)))


def test_regions_are_scored_apart():
    exact = np.full((2, 4, 4, 3), 100, np.uint8)
    edited, mask = exact.copy(), np.zeros((2, 4, 4), bool)
    mask[:, :2] = True
    edited[:, :2] += 51
    rows = region_psnr(edited, exact, mask)
    assert rows["changed_psnr"] == pytest.approx(20 * np.log10(255 / 51))
    assert rows["kept_psnr"] == PSNR_CAP
    assert rows["frame_psnr"] == pytest.approx(rows["changed_psnr"] + 10 * np.log10(2))


def test_a_video_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="shape|is"):
        region_psnr(np.zeros((1, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4), bool))


def test_held_out_edits_are_ten_tasks_of_test_compositions_and_the_same_each_time():
    edits = held_out_edits(2)
    assert [e.task for e in edits[::2]] == list(TASKS)
    assert edits == held_out_edits(2)
    assert edits[::2] == held_out_edits(1)
    assert not set(map(repr, edits)) & set(map(repr, held_out_edits(2, seed=9)))
    assert all(is_held_out(e.source.things[0].color, e.source.things[0].kind) for e in edits)
