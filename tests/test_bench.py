"""NanoEdit-Bench: editors whose faults are known get the scores they should."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.evaluation.nano.editors import adapter_editor, copy_source
from imvideoedit.evaluation.nano.exact import PSNR_CAP, held_out_edits
from imvideoedit.evaluation.nano.measures import measure
from imvideoedit.evaluation.nano.scoring import WEIGHTS, overall, parts
from imvideoedit.evaluation.nano.suite import run_nano_suite, score_editors
from imvideoedit.evaluation.nano.summary import means, summarize
from imvideoedit.evaluation.nano.tracks import motion_fidelity
from imvideoedit.evaluation.reporting.statistics import bootstrap, interval_over_seeds
from imvideoedit.world.scenes import Scene, Thing
from imvideoedit.world.tasks import TASKS


def exact_answer(source, edit):
    return edit.render(len(source))[1]


def frozen(source, edit):
    return np.repeat(exact_answer(source, edit)[:1], len(source), axis=0)


def shuffled(source, edit):
    return exact_answer(source, edit)[np.random.default_rng(0).permutation(len(source))]


def flickering(source, edit):
    brighter = exact_answer(source, edit).astype(int) + 24 * (np.arange(len(source)) % 2)[:, None, None, None]
    return brighter.clip(0, 255).astype(np.uint8)


def other_video(source, edit):
    return held_out_edits(1, seed=7)[0].render(len(source))[1]


EDITORS = {f.__name__: f for f in (exact_answer, copy_source, frozen, shuffled, flickering, other_video)}


@pytest.fixture(scope="module")
def ladder():
    rows, _ = score_editors(EDITORS, held_out_edits(1), [9], shown="frozen")
    return {name: summarize([row for row in rows if row["editor"] == name]) for name in EDITORS}


def test_the_exact_answer_scores_everything(ladder):
    exact = ladder["exact_answer"]
    assert exact["overall"] == pytest.approx(100, abs=0.01) and exact["interval"] == [100, 100]
    assert exact["parts"] == pytest.approx(WEIGHTS, abs=0.01)
    assert exact["artifact_rate"] == exact["changed_color"] == exact["difference_error"] == 0
    assert exact["motion"] == 1
    assert exact["changed_psnr"] == exact["kept_psnr"] == exact["frame_psnr"] == PSNR_CAP
    assert set(exact["tasks"]) == set(TASKS)


def test_copying_keeps_everything_and_is_worth_little(ladder):
    copied = ladder["copy_source"]
    assert copied["overall"] < 40 and copied["parts"]["adherence"] == 0
    assert copied["kept_psnr"] > 50 and copied["kept_ssim"] > copied["changed_ssim"] and copied["artifact_rate"] == 0


def test_a_frozen_video_loses_time_and_a_shuffled_one_more(ladder):
    temporal = {name: result["parts"]["temporal"] for name, result in ladder.items()}
    assert temporal["exact_answer"] > temporal["frozen"] + 8 > temporal["shuffled"] + 8
    assert temporal["flickering"] < temporal["exact_answer"] - 8
    assert 0.7 < ladder["frozen"]["difference_error"] < 1.05


def test_another_video_scores_least(ladder):
    lost = ladder["other_video"]
    assert lost["overall"] < 20 and lost["motion"] < 0.3 and lost["artifact_rate"] > 0.2
    assert all(lost["overall"] < result["overall"] for name, result in ladder.items() if name != "other_video")


def test_parts_are_monotone_in_what_they_measure():
    good = {
        "remaining": 0.3, "difference_error": 0.2, "motion": 0.9, "frame_ssim": 0.8, "kept_psnr": 28.0,
        "artifact_rate": 0.02,
    }  # fmt: skip
    worse = {**good}
    before = overall(parts(good))
    for key, step in {"remaining": 0.1, "difference_error": 0.5, "motion": -0.2, "frame_ssim": -0.2,
                      "kept_psnr": -4.0, "artifact_rate": 0.05}.items():  # fmt: skip
        worse[key] += step
        after = overall(parts(worse))
        assert after < before - 0.5, key
        before = after


def test_a_single_frame_has_no_temporal_part_and_can_still_score_all():
    edit = held_out_edits(1)[1]
    source, exact, mask = edit.render(1)
    points = parts(measure(exact, exact, source, mask, edit.target))
    assert math.isnan(points["temporal"]) and overall(points) == pytest.approx(100)


def test_tracks_tell_how_far_an_object_is_off():
    scene = Scene("grey", "plain", (Thing("box", "red", x=0.4, y=0.5),))
    shown = np.full((1, 64, 64, 3), 120, np.uint8)
    shown[0, 27:38, 20:31] = (230, 30, 30)
    moved = np.roll(shown, 4, axis=2)
    gone = np.full_like(shown, 120)
    nearness = [motion_fidelity(video, shown, scene) for video in (shown, moved, gone)]
    assert nearness == pytest.approx([1.0, 0.5, 0.0])
    assert math.isnan(motion_fidelity(shown, shown, Scene("grey", "plain")))


def test_intervals_hold_the_mean_shrink_with_more_videos_and_repeat():
    values = np.random.default_rng(3).normal(50, 10, 400)
    few, many = bootstrap(values[:40]), bootstrap(values)
    assert few[0] < values[:40].mean() < few[1] and many[1] - many[0] < 0.6 * (few[1] - few[0])
    assert many == bootstrap(values)


def test_lengths_of_one_video_are_no_further_videos():
    rows = [row for row in _measured(6) for _ in range(8)]
    once, often = means(_measured(6)), means(rows)
    assert often["interval"] == once["interval"] and often["videos"] == 8 * once["videos"]


def _measured(videos: int) -> list[dict]:
    values = np.random.default_rng(5).normal(50, 10, videos)
    parts = dict.fromkeys(WEIGHTS, 1.0)
    return [{"task": "relighting", "video": i, "frames": 9, "overall": v, **parts} for i, v in enumerate(values)]


def test_an_interval_over_seeds_repeats_and_grows_with_what_seeds_differ():
    def rows(spread):
        noise = np.random.default_rng(4).normal(0, 3, 40)
        places = [(seed, video, length) for seed in range(3) for video in range(20) for length in (5, 9)]
        return [
            {"seed": seed, "task": "relighting", "video": video, "overall": 50 + noise[video] + spread * (seed - 1)}
            for seed, video, length in places
        ]

    near, far = interval_over_seeds(rows(0)), interval_over_seeds(rows(6))
    assert near == interval_over_seeds(rows(0)) and near[0] < np.mean([row["overall"] for row in rows(0)]) < near[1]
    assert far[1] - far[0] > 2 * (near[1] - near[0])
    # Copies of a video, at other lengths or by other seeds, are no new evidence.
    assert near == interval_over_seeds([row for row in rows(0) if row["seed"] == 0][::2])


def test_frames_are_scored_one_by_one():
    ((row, *_), _) = score_editors({"ours": flickering}, held_out_edits(1)[:2], [4], shown="ours")
    assert row["psnr_by_frame"][::2] == [60, 60] and all(18 < psnr < 30 for psnr in row["psnr_by_frame"][1::2])


def test_rows_and_examples_are_the_same_and_in_the_same_order_however_many_cores_there_are(bundled_pipeline):
    def found(cores):
        torch.set_num_threads(cores)
        editors = {"flickering": flickering, "adapter": adapter_editor(bundled_pipeline, steps=1)}
        rows, examples = score_editors(editors, held_out_edits(2)[::2] + held_out_edits(2)[1:2], [5, 2], "flickering")
        return [{key: value for key, value in row.items() if key != "seconds"} for row in rows], examples

    before = torch.get_num_threads()
    try:
        (rows, examples), (others, shown) = found(1), found(4)
        assert torch.get_num_threads() == 4, "the number of threads is left changed"
    finally:
        torch.set_num_threads(before)
    assert str(rows) == str(others)  # NaN equals itself as text
    places = [(row["editor"], row["frames"], row["video"]) for row in rows]
    assert places == [(name, n, video) for name in ("flickering", "adapter") for n in (5, 2) for video in range(11)]
    for number, edit in enumerate(held_out_edits(1)):
        source, exact, _ = edit.render(5)
        assert edit.task == list(examples)[number]
        videos = (source, exact, flickering(source, edit))
        for given in (examples, shown):
            assert all(np.array_equal(*pair) for pair in zip(given[edit.task][1:], videos, strict=True))


def test_an_editors_error_ends_the_scoring():
    def broken(source, edit):
        raise UserError("this editor is broken")

    with pytest.raises(UserError, match="this editor is broken"):
        score_editors({"broken": broken}, held_out_edits(1), [1], shown="broken")


def test_pictures_show_the_first_video_of_each_task_as_it_was_scored(bundled_pipeline, tmp_path):
    calls = []

    class Negative:
        backbone, config, method = bundled_pipeline.backbone, bundled_pipeline.config, bundled_pipeline.method
        placement = bundled_pipeline.placement

        def __call__(self, source, instruction, **how):
            calls.append(instruction)
            return SimpleNamespace(frames=255 - source)

    run_nano_suite(Negative(), tmp_path, per_task=2, frames=(1, 5))
    edits = held_out_edits(2)
    assert sorted(calls) == sorted(2 * [edit.instruction for edit in edits]), "edited twice, or not at all"
    assert {path.stem for path in (tmp_path / "strips").iterdir()} == {edit.task for edit in edits}
    for edit in edits[::2]:
        strip = np.asarray(Image.open(tmp_path / "strips" / f"{edit.task}.png"))
        assert strip.shape[1] == 128, "the first length has one frame"
        pixels = strip[-4 - 128 : -4 : 2, ::2]  # the last row, at its own size
        assert np.array_equal(pixels, 255 - edit.render(1)[0][0])
    assert Image.open(tmp_path / "sheet.png").height > 5 * 128
    rows = pyarrow.parquet.read_table(tmp_path / "videos.parquet").to_pylist()
    assert all(len(row["psnr_by_frame"]) == row["frames"] for row in rows)
    assert "psnr_by_frame" not in (tmp_path / "result.json").read_text()


def test_the_bundled_adapter_runs_and_both_files_agree(tmp_path, bundled_pipeline):
    result = run_nano_suite(bundled_pipeline, tmp_path, per_task=1, frames=(1, 5), steps=1, guidance=1)
    assert result == json.loads((tmp_path / "result.json").read_text())
    assert {"overall", "parts", "changed_psnr", "kept_psnr", "frame_psnr", "seconds"} <= set(result)
    assert set(result["lengths"]) == {"1", "5"} and len(result["tasks"]) == len(result["lengths"]["5"]["tasks"]) == 10
    rows = pyarrow.parquet.read_table(tmp_path / "videos.parquet").to_pylist()
    ours = [row["overall"] for row in rows if row["editor"] == "adapter"]
    assert len(rows) == 3 * 20 and np.mean(ours) == pytest.approx(result["overall"], abs=1e-3)
    assert result["ceiling"]["overall"] > result["copy"]["overall"]


def test_senseless_numbers_are_refused(bundled_pipeline, tmp_path):
    with pytest.raises(UserError, match="at least 1"):
        run_nano_suite(bundled_pipeline, tmp_path, per_task=0)
    with pytest.raises(UserError, match="seed is -1"):
        run_nano_suite(bundled_pipeline, tmp_path, seed=-1)
