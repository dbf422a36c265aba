"""Benchmarks from folders laid out as their publishers do, and the template of our own."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.evaluation.suites.benchmark import _mask_video
from imvideoedit.evaluation.suites.folders import LAYOUTS, read_benchmark
from imvideoedit.evaluation.suites.template import sixty, template
from imvideoedit.video.reader import Clip, write_video
from imvideoedit.world.tasks import TASKS
from tests.edited_clips import moving


def video(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, moving(1, 0), fps=8)


def editversebench(folder: Path) -> None:
    record = {"<text>": "<video1> Add a small golden crown", "<video1>": "videos/17.mp4", "type": "add object"}
    texts = {"source_prompt": "A young woman", "target_prompt": "A crowned young woman", "<video1> link": "https://x.y"}
    (folder / "test.json").write_text(json.dumps({"0": record | texts}))
    video(folder / "videos/17.mp4")


def openve_bench(folder: Path) -> None:
    with (folder / "benchmark_videos.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["edited_type", "prompt", "original_video"], ["local_add", "Add a hat", "videos/a.mp4"]]
        )
    video(folder / "videos/a.mp4")


def ivebench(folder: Path) -> None:
    record = {"video_name": "0001", "source_prompt": "A lake", "edit_prompt": "Freeze the lake", "target_prompt": "Ice"}
    (folder / "ivebench_prompt_short.json").write_text(json.dumps([record | {"category": "attribute"}]))
    video(folder / "ivebenchdb_mp4_short/0001.mp4")


def vie_bench(folder: Path) -> None:
    (folder / "remove.json").write_text(json.dumps([{"instruction": "Remove the dog", "video_path": "dog.mp4"}]))
    video(folder / "videos/dog.mp4")


def reco_bench(folder: Path) -> None:
    for task in ("add", "style"):
        (folder / task).mkdir()
        (folder / task / f"{task}_data_configs.json").write_text(
            json.dumps([{"src_video": "v.mp4", "prompt": f"{task} it"}])
        )
        video(folder / task / "src_videos/v.mp4")


def five_bench(folder: Path) -> None:
    record = {"video_name": "0001_bus", "save_dir": "0", "editing_type_id": "1", "source_prompt": "A [red] bus drives"}
    (folder / "edit_prompt").mkdir()
    for number in (1, 2):
        edits = [record | {"target_prompt": f"A [blue{number}] bus drives"}]
        (folder / f"edit_prompt/edit{number}_FiVE.json").write_text(json.dumps(edits))
    video(folder / "videos/0001_bus.mp4")
    (folder / "bmasks/0001_bus").mkdir(parents=True)
    for name in ("00001.jpg", "00002.jpg"):
        Image.new("L", (48, 48), 255).save(folder / "bmasks/0001_bus" / name)


LAID_OUT = [editversebench, openve_bench, ivebench, vie_bench, reco_bench, five_bench]
EXPECTED = {
    "editversebench": ("Add a small golden crown", "add object", "A young woman", "A crowned young woman"),
    "openve_bench": ("Add a hat", "local_add", "", ""),
    "ivebench": ("Freeze the lake", "attribute", "A lake", "Ice"),
    "vie_bench": ("Remove the dog", "remove", "", ""),
    "reco_bench": ("add it", "add", "", ""),
    "five_bench": ("A blue1 bus drives", "edit1_FiVE", "A red bus drives", "A blue1 bus drives"),
}


@pytest.mark.parametrize("lay_out", LAID_OUT, ids=lambda lay_out: lay_out.__name__)
def test_a_benchmarks_folder_becomes_a_list_of_edits_to_make(lay_out, tmp_path):
    lay_out(tmp_path)
    rows = read_benchmark(lay_out.__name__, tmp_path)
    first = rows[0]
    assert (first.instruction, first.task, first.source_prompt, first.prompt) == EXPECTED[lay_out.__name__]
    assert first.source.is_file() and first.edited is None
    assert len({row.id for row in rows}) == len(rows) == (2 if lay_out in (reco_bench, five_bench) else 1)


def test_a_folder_of_masks_becomes_a_video_that_scorers_read(tmp_path):
    five_bench(tmp_path)
    row = read_benchmark("five_bench", tmp_path)[0]
    assert row.mask == tmp_path / "bmasks/0001_bus"
    path = _mask_video(row, tmp_path / "out")
    frames = list(Clip(path))
    assert path == tmp_path / "out/0001_bus.mkv" and len(frames) == 2 and all((frame > 250).all() for frame in frames)
    before = path.stat().st_mtime_ns
    assert _mask_video(row, tmp_path / "out") == path and path.stat().st_mtime_ns == before


@pytest.mark.parametrize("lay_out", LAID_OUT, ids=lambda lay_out: lay_out.__name__)
def test_a_missing_video_is_named(lay_out, tmp_path):
    lay_out(tmp_path)
    for path in tmp_path.rglob("*.mp4"):
        path.unlink()
    with pytest.raises(UserError, match="there is no video .*download the source videos too"):
        read_benchmark(lay_out.__name__, tmp_path)


def test_unknown_benchmarks_layouts_and_fields_are_named(tmp_path):
    with pytest.raises(UserError, match=", ".join(LAYOUTS)):
        read_benchmark("other", tmp_path)
    with pytest.raises(UserError, match="holds none of test.json.*huggingface.co/datasets/sooyek/EditVerseBench"):
        read_benchmark("editversebench", tmp_path)
    (tmp_path / "list.json").write_text(json.dumps([{"clip": "a.mp4", "words": "x"}]))
    with pytest.raises(UserError, match="entry 0: none of the fields .*it has clip, words"):
        read_benchmark("vie_bench", tmp_path)
    (tmp_path / "list.json").write_text("[3]")
    with pytest.raises(UserError, match="no object with fields"):
        read_benchmark("vie_bench", tmp_path)


def test_a_list_cannot_point_out_of_its_folder(tmp_path):
    video(tmp_path / "secret.mp4")
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench/list.json").write_text(json.dumps([{"instruction": "x", "video": "../secret.mp4"}]))
    with pytest.raises(UserError, match="there is no video"):
        read_benchmark("vie_bench", tmp_path / "bench")


def test_the_template_has_25_edits_of_each_task_each_with_its_own_words():
    rows = template()
    assert len(rows) == 250 and [row.task for row in rows[::25]] == list(TASKS)
    assert len({row.instruction for row in rows}) == len({row.prompt for row in rows}) == 250
    assert len({row.source for row in rows}) == len({row.source_prompt for row in rows}) == 25
    assert all(row.prompt != row.source_prompt and row.prompt.endswith(".") for row in rows)
    assert not any("  " in text or "{" in text for row in rows for text in (row.prompt, row.instruction))


def test_the_template_of_60_has_30_simple_and_30_complex_edits():
    rows, known = sixty(), {row.instruction for row in template()}
    assert [row.task for row in rows] == ["simple"] * 30 + ["complex"] * 30
    assert len({row.id for row in rows}) == 60 and {row.instruction for row in rows} <= known
    kinds = Counter(row.id.removeprefix(f"{row.task}_")[:-3] for row in rows)
    assert set(kinds.values()) == {10} and len(kinds) == 6
    people = {row.source_prompt.split()[0] + " " + row.source_prompt.split()[1] for row in rows[30:]}
    assert not people & {"A brown", "A golden", "A white", "A grey"}, "no animals among the portraits"
