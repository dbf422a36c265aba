"""Data of other trainers are read as they are: recognised, checked by row, and trained on."""

import json
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.data.check import main
from imvideoedit.data.records import open_records
from imvideoedit.methods.adapter_file import read_header, read_state
from imvideoedit.training.dry_run import Plan, pair_count
from tests.clips import levels_of
from tests.data_forms import CAPTIONS, FORMS, FRAMES, clip, csv_list, folders, image, level, musubi, videox_fun
from tests.training_runs import CONF, HERE, train_here


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))


def checked(path: Path, capsys, *options: str) -> tuple[int, list[str], list[str]]:
    """Exit code of the check, its bad rows, and all of its lines, without the libraries' progress."""
    try:
        main([str(path), *options])
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    captured = capsys.readouterr()
    lines = captured.out.splitlines() + [line for line in captured.err.splitlines() if line.startswith("error: ")]
    return code, [line for line in lines if line.startswith("bad ")], lines


@pytest.mark.parametrize("form", [name for name in FORMS if name != "own"])
def test_a_form_is_recognised_and_its_pairs_are_what_was_written(tmp_path, form, capsys):
    called = FORMS[form](tmp_path / "data")
    records = open_records(tmp_path / "data")
    assert records.form.startswith(called) and len(records) == len(CAPTIONS)
    for row, record in enumerate(records):
        assert (record.row, record.prompt, record.task, record.scores) == (row, CAPTIONS[row], "", None)
        source, target = record.load()
        if record.is_clip:
            assert form == "videox_fun" and source.shape == (FRAMES, 32, 48, 3)
            found = set(levels_of(source)), set(levels_of(target))
            assert found == ({level(row, "source")}, {level(row, "target")})
        else:
            assert (abs(source.astype(int) - level(row, "source")) <= 1).all()
            assert (abs(target.astype(int) - level(row, "target")) <= 1).all()
    assert [open_records(tmp_path / "data", called)[row].id for row in range(3)] == [r.id for r in records]
    frames = "1,5" if form == "videox_fun" else "1"
    code, bad, lines = checked(tmp_path / "data", capsys, "--frames", frames)
    assert (code, bad, lines[-1]) == (0, [], "3 of 3 rows are good") and lines[0].startswith(f"read as {called}")


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_two_steps_are_trained_on_each_form(tmp_path, form, monkeypatch):
    called = FORMS[form](tmp_path / "data")
    frames = "[5]" if form == "videox_fun" else "[1]"
    adapter = train_here(tmp_path, monkeypatch, "data.path=data", f"data.frames={frames}")
    assert read_header(adapter).training["steps"] == 2, called


@pytest.mark.slow
@pytest.mark.parametrize("form", ["hugging_face", "csv_list"])
def test_two_steps_are_trained_on_columns_of_any_names(tmp_path, form, monkeypatch):
    """No name is known: what each column is, the map says, and the wrong way round it is another training."""
    known = ("original_image", "edited_image", "edited_prompt")
    if form == "csv_list":
        known = ("vife_edit_video", "video", "prompt")
    FORMS[form](tmp_path / "data")
    (file,) = (path for path in (tmp_path / "data").iterdir() if path.suffix in (".csv", ".parquet"))
    if form == "csv_list":
        file.write_text(file.read_text().replace(",".join(known[i] for i in (1, 2, 0)), "B,C,A"))
    else:
        table = pq.read_table(file)
        names = dict(zip(known, "ABC", strict=True))
        pq.write_table(table.rename_columns([names.get(name, name) for name in table.column_names]), file)
    with pytest.raises(UserError, match="no column is known to be its source"):
        open_records(file, columns={"edited_prompt": "C"})
    states = []
    for name, (source, target) in {"right": "AB", "wrong": "BA"}.items():
        columns = f"data.columns={{source: {source}, target: {target}, edited_prompt: C}}"
        (tmp_path / name).mkdir()
        adapter = train_here(tmp_path / name, monkeypatch, f"data.path={file}", columns)
        assert read_header(adapter).training["steps"] == 2
        states.append(read_state(adapter))
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_dry_run_counts_the_rows_of_any_form_and_its_longest_clips(tmp_path):
    videox_fun(tmp_path / "data")
    with initialize_config_dir(CONF, version_base="1.3"):
        form = [
            f"data.path={tmp_path}/data/metadata.json",
            "data.columns={source: file_path, target: control_file_path}",
        ]
        config = compose("train", [*HERE, *form, "data.frames=[1,5,17]"])
    assert Plan(config).pairs.frames == 5  # of latents
    with initialize_config_dir(CONF, version_base="1.3"):
        assert Plan(compose("train", HERE)).pairs.frames == 1
    assert pair_count(config) == (3, "")


def test_faults_of_a_folder_pair_cost_one_line_each(tmp_path, capsys):
    data = tmp_path / "data"
    folders(data)
    (data / "source/0.png").unlink()
    (data / "target/1.txt").unlink()
    image(data / "target/2.png", 9, (32, 64))
    for side in ("source", "target"):
        clip(data / side / "3.mp4", 90, frames=4)
        clip(data / side / "4.mp4", 90, frames=6 if side == "source" else 7)
        clip(data / side / "5.mp4", 90, frames=9)
    for stem in "345":
        (data / f"target/{stem}.txt").write_text("a ball")
    code, bad, lines = checked(data, capsys, "--frames", "1,5")
    expected = [
        ("row 0 (0)", "target/0.png has no partner in the folder source"),
        ("row 1 (1)", "has no caption", "target/1.txt"),
        ("row 2 (2)", "source is 48x32 but target is 64x32"),
        ("row 3 (3)", "has 4 frames, fewer than the shortest length of a clip, 5"),
        ("row 4 (4)", "source has 6 frames but target has 7"),
    ]
    assert code == 2 and len(bad) == len(expected) and lines[-1] == "1 of 6 rows are good"
    for line, parts in zip(bad, expected, strict=True):
        assert all(part in line for part in parts), line


def test_captions_may_lie_beside_either_side_or_in_a_folder_of_their_own(tmp_path):
    data = tmp_path / "data"
    folders(data)
    (data / "captions").mkdir()
    (data / "target/0.txt").rename(data / "captions/0.txt")
    (data / "target/1.txt").rename(data / "source/1.txt")
    (data / "source/2.txt").write_text("the scene before")
    records = open_records(data)
    assert [record.prompt for record in records] == CAPTIONS
    assert [record.source_prompt for record in records] == ["", "", "the scene before"]
    (data / "target/0.txt").write_text("another")
    with pytest.raises(UserError, match=r"row 0 \(0\): has other captions beside the target and in captions"):
        open_records(data)[0]
    image(data / "source/1.jpg", 3)
    with pytest.raises(UserError, match=r"row 1 \(1\): source/1.jpg and source/1.png have one name"):
        open_records(data)[1]


def test_further_folders_are_media_and_texts_by_their_names(tmp_path):
    data = tmp_path / "data"
    folders(data)
    image(data / "mask/0.png", 255)
    for frame, grey in ((2, 20), (10, 100), (1, 10)):
        image(data / f"motion/1/{frame}.png", grey)
    (data / "style").mkdir()
    (data / "style/2.txt").write_text("oil paint")
    records = open_records(data)
    assert [sorted(record.media) for record in records] == [
        ["mask", "source", "target"],
        ["motion", "source", "target"],
        ["source", "target"],
    ]
    assert records[2].texts["style"] == "oil paint"
    assert levels_of(records[1].read("motion")) == [10, 20, 100]  # by number, not by letters


def test_columns_name_folders_and_fields(tmp_path):
    folders(tmp_path / "data")
    (tmp_path / "data/source").rename(tmp_path / "data/before")
    records = open_records(tmp_path / "data", columns={"source": "before", "target": "target"})
    assert records.form.startswith("folders") and int(records[1].load()[0].mean()) == level(1, "source")
    csv_list(tmp_path / "csv")
    swapped = open_records(tmp_path / "csv", columns={"source": "video", "target": "vife_edit_video"})
    assert int(swapped[1].load()[0].mean()) == level(1, "target")
    with pytest.raises(
        UserError, match="no column clip, given for mask; its columns are prompt, video, vife_edit_video"
    ):
        open_records(tmp_path / "csv", columns={"mask": "clip"})


def test_unknown_and_doubtful_columns_are_named(tmp_path):
    file = tmp_path / "pairs.csv"
    file.write_text("a,b,prompt\nx.png,y.png,text\n")
    with pytest.raises(UserError, match="no column is known to be its source, target; its columns are a, b, prompt"):
        open_records(file)
    file.write_text("source,input_image,target,prompt\nx.png,x.png,y.png,text\n")
    with pytest.raises(UserError, match="source and input_image may both be the source; give columns source=COLUMN"):
        open_records(file)
    file.write_text("source,target\nx.png,y.png\n")
    with pytest.raises(UserError, match="no column is known to be its edited_prompt or instruction"):
        open_records(file)
    file.write_text("source,target,prompt\nx.png,y.png,red, and blue\n")
    with pytest.raises(UserError, match="row 0: has more fields than the header; put texts with commas in quotes"):
        open_records(file)[0]


def test_rows_of_lists_that_lack_something_are_named(tmp_path):
    musubi(tmp_path / "data")
    file = tmp_path / "data/pairs.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    del rows[0]["control_path"]
    rows[1]["caption"] = ""
    file.write_text("\n".join(map(json.dumps, rows)))
    records = open_records(tmp_path / "data")
    for row, message in enumerate(["lacks control_path, which is its source", "has no caption; fill in caption"]):
        with pytest.raises(UserError, match=f"row {row}.*{message}"):
            records[row]
    assert records[2].prompt == CAPTIONS[2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../outside.png", "leads out of the data folder"),
        ("{outside}", "leads out of the data folder"),
        ("images/../../outside.png", "leads out of the data folder"),
        ("https://example.org/a.png", "is an address, and nothing is fetched"),
        (["a.png", "b.png"], "is not a file name"),
        (3, "is not a file name"),
    ],
)
def test_files_of_lists_stay_in_the_lists_folder(tmp_path, name, message):
    videox_fun(tmp_path / "data")
    outside = image(tmp_path / "outside.png", 3)
    file = tmp_path / "data/metadata.json"
    rows = json.loads(file.read_text())
    rows[0]["control_file_path"] = str(outside) if name == "{outside}" else name
    file.write_text(json.dumps(rows))
    with pytest.raises(UserError, match=f"row 0: source .*{message}"):
        open_records(file)[0]


def test_hugging_face_columns_are_never_decoded_or_fetched(tmp_path):
    image(tmp_path / "data/a.png", 40)
    rows = [
        {"source_img": "a.png", "target_img": {"bytes": b"no image", "path": None}, "instruction": "x", "extra": ["y"]},
        {"source_img": "https://example.org/a.png", "target_img": {"bytes": b"b", "path": None}, "instruction": "x"},
        {"source_img": "/etc/passwd", "target_img": {"bytes": b"b", "path": None}, "instruction": "x"},
    ]
    table = datasets.Dataset.from_list(rows)
    for column in ("source_img", "target_img"):
        table = table.cast_column(column, datasets.Image())
    pq.write_table(table.data.table, tmp_path / "data/t.parquet")  # to_parquet would embed what the paths name
    records = open_records(tmp_path / "data")
    assert records.form == "datasets: source = source_img, target = target_img, instruction = instruction"
    np.testing.assert_array_equal(records[0].read("source"), np.full((1, 32, 48, 3), 40, np.uint8))
    with pytest.raises(UserError, match="row 0 .*target.*as an image"):
        records[0].load()
    for row, message in ((1, "nothing is fetched"), (2, "leads out of the data folder")):
        with pytest.raises(UserError, match=f"row {row}: source .*{message}"):
            records[row]


def test_a_folder_with_several_lists_is_not_guessed_at(tmp_path):
    musubi(tmp_path / "data")
    (tmp_path / "data/other.csv").write_text("video,prompt,vife_edit_video\na,b,c\n")
    with pytest.raises(UserError, match=r"holds lists that end in \.jsonl and \.csv; point to one of the files"):
        open_records(tmp_path / "data")
    assert open_records(tmp_path / "data/pairs.jsonl").form.startswith("musubi (pairs.jsonl): source = control_path")
    with pytest.raises(UserError, match="there is no format 'csvs'; choose auto, own"):
        open_records(tmp_path / "data", "csvs")


def test_a_written_list_needs_no_task_but_our_own_form_is_still_checked(tmp_path):
    for name, grey in (("a.png", 1), ("b.png", 2), ("m.png", 255)):
        image(tmp_path / name, grey)
    row = {"source": "a.png", "target": "b.png", "instruction": "make it blue.png", "mask": "m.png", "note": "none"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    (record,) = open_records(tmp_path)
    assert (record.id, record.prompt, record.texts["note"]) == ("b.png", "make it blue.png", "none")
    assert sorted(record.media) == ["mask", "source", "target"]
    (tmp_path / "metadata.jsonl").write_text(json.dumps({**row, "id": "1"}))
    with pytest.raises(UserError, match="row 0 .*lacks task, source_prompt, edited_prompt"):
        open_records(tmp_path)[0]


def test_arguments_of_the_check_are_named(tmp_path, capsys):
    folders(tmp_path / "data")
    for options, message in (
        (["--columns", "source"], "--columns 'source' is not written as source=COLUMN"),
        (["--frames", "1,x"], "--frames '1,x' is not written as 1,17"),
        (["--frames", "4"], "give lengths 4k + 1"),
        (["--format", "zip"], "there is no format 'zip'"),
    ):
        code, _, lines = checked(tmp_path / "data", capsys, *options)
        assert code == 2 and len(lines) == 1 and message in lines[0]
    assert Image.open(tmp_path / "data/source/0.png").size == (48, 32)
