"""Manifests and benchmarks give an adapter the inputs that it takes, and say what it lacks or does not take."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import Input
from imvideoedit.editing.run_jobs import Outcome
from imvideoedit.evaluation.edits.manifest import read_manifest, write_manifest
from imvideoedit.evaluation.edits.score_store import ScoreStore
from imvideoedit.evaluation.suites import benchmark
from imvideoedit.evaluation.suites.benchmark import run_benchmark
from imvideoedit.evaluation.suites.folders import read_benchmark
from imvideoedit.methods.known import METHODS
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.video.reader import write_video
from tests.edited_clips import moving
from tests.test_adapter_file import saved
from tests.test_edits import Counting

FULL = {
    "source": "clip.mp4",
    "instruction": "make it red",
    "first_frame": "frames/red.png",
    "mask": "mask.mp4",
    "reference": "ball.png",
    "input.depth": "depth.mp4",
    "input.caption": "a red ball, and no file",
}


@pytest.fixture
def folder(tmp_path):
    """A manifest's folder with all media, and a file outside of it."""
    place = tmp_path / "bench"
    (place / "frames").mkdir(parents=True)
    for name in ("clip", "mask", "depth", "other"):
        write_video(place / f"{name}.mp4", moving(3, 1), fps=8)
    for path in (place / "frames/red.png", place / "ball.png", tmp_path / "outside.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    return place


def write_rows(folder: Path, *rows: dict[str, Any]) -> Path:
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_manifest_has_columns_for_inputs_by_name(folder, kind):
    if kind == "jsonl":
        write_rows(folder, FULL)
    else:
        with (folder / "manifest.csv").open("w", newline="") as file:
            csv.writer(file).writerows([FULL.keys(), FULL.values()])
    (row,) = read_manifest(folder)
    assert row.inputs == {
        "first_frame": folder / "frames/red.png",
        "reference": folder / "ball.png",
        "depth": folder / "depth.mp4",
        "caption": "a red ball, and no file",
    }
    assert row.given == {"mask": folder / "mask.mp4", **row.inputs}


def test_inputs_are_written_and_read_again_wherever_the_folder_moves(folder, tmp_path):
    rows = read_manifest(write_rows(folder, FULL, FULL | {"id": "plain", "first_frame": "", "input.depth": None}))
    write_manifest(rows, folder / "manifest.jsonl")
    assert read_manifest(folder) == rows and set(rows[1].inputs) == {"reference", "caption"}
    moved = Path(shutil.move(folder, tmp_path / "moved"))
    assert read_manifest(moved)[0].inputs["first_frame"] == moved / "frames/red.png"


@pytest.mark.parametrize(
    "change, words",
    [
        ({"first_frame": "gone.png"}, "no first_frame at gone.png"),
        ({"first_frame": "../outside.png"}, "no first_frame at ../outside.png"),
        ({"reference": "frames/../../outside.png"}, "no reference at frames/../../outside.png"),
        ({"reference": "/etc/hostname"}, "no reference at /etc/hostname"),
        ({"reference": "a" * 5000}, "no reference at aaa"),
        ({"input.first_frame": "ball.png"}, "first_frame is given twice"),
        ({"input.mask": "mask.mp4"}, "mask is given twice"),
        ({"mask": "box:1,2,3,4"}, "no mask at .*box:1,2,3,4; .* a box or a folder for the adapter is input.mask"),
        ({"mask": "frames"}, "no mask at .*frames; .* a box or a folder for the adapter is input.mask"),
        ({"input.two words": "x"}, "by an input's name"),
        ({"first_frame": ["ball.png"]}, "first_frame is .*; give a file or a text"),
        ({"input.caption": 3}, "input.caption is 3; give a file or a text"),
    ],
)
def test_a_wrong_input_is_named_with_its_row(folder, change, words):
    write_rows(folder, FULL | {"id": "right"}, FULL | change)
    with pytest.raises(UserError, match=f"manifest.jsonl, row 2: .*{words}") as caught:
        read_manifest(folder)
    assert "\n" not in str(caught.value)


def test_a_text_never_becomes_a_file_outside(folder):
    (row,) = read_manifest(write_rows(folder, FULL | {"input.caption": "../outside.png"}))
    assert row.inputs["caption"] == "../outside.png"


def test_scores_do_not_depend_on_what_the_method_was_given(folder, tmp_path):
    plain = {"source": "clip.mp4", "instruction": "make it red", "edited": "other.mp4"}
    scorer, store = Counting(), ScoreStore(tmp_path / "scores")
    store.collect(read_manifest(write_rows(folder, plain)), scorer)
    (score,) = store.collect(
        read_manifest(write_rows(folder, plain | {"first_frame": "ball.png", "input.a": "b"})), scorer
    )
    assert "length" in score and len(list((tmp_path / "scores").rglob("*.json"))) == 1


class Guided(PredictUpdate):
    name = "guided"
    inputs = (
        Input("first_frame", "image"),
        Input("mask", "mask", required=False),
        Input("caption", "text", required=False),
    )


@pytest.fixture
def made(monkeypatch):
    """Jobs that the benchmark makes; each output is a copy of its input."""
    jobs: dict[str, Any] = {}

    def copy_all(entries, options, devices):
        for entry in entries:
            if entry.job is None:
                yield Outcome(entry, "failed", entry.problem)
                continue
            entry.job.output.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(entry.job.input, entry.job.output)
            jobs[entry.where] = entry.job
            yield Outcome(entry, "made")

    monkeypatch.setattr(benchmark, "run_jobs", copy_all)
    return jobs


def run(folder, tmp_path, method, monkeypatch):
    monkeypatch.setitem(METHODS, method.name, type(method))
    saved(tmp_path / "own.safetensors", method)
    manifest = str(folder / "manifest.jsonl")
    return run_benchmark(tmp_path / "out", manifest, str(tmp_path / "own.safetensors"), "cpu", {"any": Counting()})


def test_a_benchmark_gives_what_the_adapter_takes_and_tells_the_rest(folder, tmp_path, made, monkeypatch, capsys):
    bare = {"id": "bare", "source": "clip.mp4", "instruction": "make it red"}
    write_rows(
        folder,
        FULL | {"id": "full"},
        bare,
        bare | {"id": "framed", "first_frame": "ball.png"},
        bare | {"id": "texted", "first_frame": "ball.png", "input.caption": "ball.png"},
        bare | {"id": "boxed", "first_frame": "ball.png", "input.mask": "box:1,2,3,4"},
        bare | {"id": "worded", "first_frame": "ball.png", "input.mask": "the ball"},
    )
    page = run(folder, tmp_path, Guided(), monkeypatch)
    assert {name: job.inputs for name, job in made.items()} == {
        "full": {
            "first_frame": folder / "frames/red.png",
            "mask": folder / "mask.mp4",
            "caption": "a red ball, and no file",
        },
        "framed": {"first_frame": folder / "ball.png"},
        "boxed": {"first_frame": folder / "ball.png", "mask": "box:1,2,3,4"},
    }
    told = capsys.readouterr().err
    assert told.count("does not take depth, reference, which the edits have") == 1
    lines = [line for line in told.splitlines() if line.startswith("failed")]
    assert len(lines) == 3
    assert "bare: the adapter own.safetensors needs the input first_frame (image), which is not given" in lines[0]
    assert "texted: " in lines[1] and "takes a text for caption, not the file" in lines[1]
    assert "worded: " in lines[2] and "takes a file for mask (mask), but there is none at the ball" in lines[2]
    rows = read_manifest(tmp_path / "out/edits")
    assert [row.id for row in rows] == ["full", "framed", "boxed"] and page.is_file()
    assert rows[0].mask == folder / "mask.mp4", "the scorers' mask"


def test_an_adapter_without_inputs_gets_none(folder, tmp_path, made, monkeypatch, capsys):
    write_rows(folder, FULL | {"id": "full"})
    run(folder, tmp_path, PredictUpdate(), monkeypatch)
    assert made["full"].inputs == {}
    assert "does not take caption, depth, first_frame, mask, reference, which" in capsys.readouterr().err


def test_editversebench_names_its_media_by_tags(folder):
    def record(kind, **media):
        tags = {f"<{name}>": value for name, value in media.items()}
        return {"<text>": f"<video1> take {' '.join(tags)}", "<video1>": "clip.mp4", "type": kind} | tags

    (folder / "test.json").write_text(
        json.dumps(
            {
                "0": record("propagation", image1="frames/red.png"),
                "1": record("insert object with image", image1="ball.png"),
                "2": record("edit with mask", video2="mask.mp4"),
                "3": record("pose to video", video2="depth.mp4"),
                "4": record("insert object with image", image1="gone.png"),
                "5": record("insert object with image", image1="../outside.png"),
                "6": record("style"),
            }
        )
    )
    rows = read_benchmark("editversebench", folder)
    assert [row.given for row in rows] == [
        {"first_frame": folder / "frames/red.png"},
        {"reference": folder / "ball.png"},
        {"mask": folder / "mask.mp4"},
        {"video2": folder / "depth.mp4"},
        {"reference": "gone.png"},
        {"reference": "../outside.png"},
        {},
    ]
    assert {row.instruction for row in rows} == {"take"} and rows[2].mask == folder / "mask.mp4"


def test_other_benchmarks_have_the_usual_fields(folder):
    (folder / "list.json").write_text(
        json.dumps(
            [
                {"instruction": "x", "video": "clip", "ref_image": "ball.png", "mask": "mask.mp4"},
                {"instruction": "x", "video": "clip", "src_mask": "mask.mp4", "src_ref_images": ["ball.png"]},
                {"instruction": "x", "video": "clip", "src_ref_images": ["ball.png", "frames/red.png"]},
                {"instruction": "x", "video": "clip", "edited_first_frame": "red.png", "mask": "m" * 5000},
            ]
        )
    )
    (folder / "first_frames").mkdir()
    shutil.copy(folder / "ball.png", folder / "first_frames/red.png")
    rows = read_benchmark("vie_bench", folder)
    both = {"mask": folder / "mask.mp4", "reference": folder / "ball.png"}
    assert [row.given for row in rows[:3]] == [both, both, {}]
    assert rows[3].given == {"first_frame": folder / "first_frames/red.png", "mask": "m" * 5000}
