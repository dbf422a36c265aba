import io
import json
import os
import pickle
import re
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.data.records import FORMATS, open_records
from imvideoedit.world.tasks import TASKS

SOURCE = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
TARGET = 255 - SOURCE


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def fields(number: int = 0, **changes) -> dict:
    row = {
        "id": f"pair-{number}",
        "task": TASKS[number % len(TASKS)],
        "source": f"images/{number}_a.png",
        "target": f"images/{number}_b.png",
        "instruction": "make it blue",
        "source_prompt": "a red ball",
        "edited_prompt": "a blue ball",
        "scores": {"judge": 0.5 + number},
    }
    return {key: value for key, value in {**row, **changes}.items() if value is not ...}


def write_folder(folder: Path, rows: list[dict]) -> Path:
    (folder / "images").mkdir()
    for number in range(len(rows)):
        (folder / f"images/{number}_a.png").write_bytes(png(SOURCE))
        (folder / f"images/{number}_b.png").write_bytes(png(TARGET))
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def as_dataset(rows: list[dict]) -> datasets.Dataset:
    rows = [{**row, "source": {"bytes": png(SOURCE)}, "target": {"bytes": png(TARGET)}} for row in rows]
    dataset = datasets.Dataset.from_list(rows)
    return dataset.cast_column("source", datasets.Image()).cast_column("target", datasets.Image())


@pytest.fixture(params=["jsonl", "saved", "saved with splits", "parquet"])
def three_rows(request, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows, folder = [fields(0), fields(1, scores=None), fields(2)], tmp_path / "data[1]"
    folder.mkdir()
    if request.param == "jsonl":
        return write_folder(folder, rows)
    dataset = as_dataset(rows)
    if request.param == "saved":
        dataset.save_to_disk(folder)
    elif request.param == "saved with splits":
        datasets.DatasetDict({"test": dataset.select([0]), "train": dataset}).save_to_disk(folder)
    else:
        dataset.select([0, 1]).to_parquet(folder / "train-00000-of-00002.parquet")
        dataset.select([2]).to_parquet(folder / "train-00001-of-00002.parquet")
        dataset.select([2]).to_parquet(folder / "validation-00000-of-00001.parquet")
    return folder


def test_every_form_gives_the_same_rows(three_rows):
    records = open_records(three_rows)
    assert len(records) == 3
    assert [record.id for record in records] == ["pair-0", "pair-1", "pair-2"]
    assert [record.task for record in records] == list(TASKS[:3])
    assert [record.scores for record in records] == [{"judge": 0.5}, None, {"judge": 2.5}]
    assert (records[0].instruction, records[0].source_prompt) == ("make it blue", "a red ball")
    assert records[0].edited_prompt == "a blue ball"
    assert records[-1] == records[2] and records[1:][0] == records[1]
    assert records[2].size() == (6, 8)
    source, target = records[2].load()
    np.testing.assert_array_equal(source, SOURCE)
    np.testing.assert_array_equal(target, TARGET)


def test_records_can_be_sent_to_other_processes(three_rows):
    records = pickle.loads(pickle.dumps(open_records(three_rows)[1:]))
    assert [record.id for record in records] == ["pair-1", "pair-2"]


def test_links_that_leave_the_folder_are_refused(tmp_path):
    (tmp_path / "outside.png").write_bytes(png(SOURCE))
    folder = tmp_path / "data"
    folder.mkdir()
    records = open_records(write_folder(folder, [fields(0)]))
    (folder / "images/0_a.png").unlink()
    (folder / "images/0_a.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(UserError, match="leads out of the data folder"):
        records[0]


def test_images_named_by_path_are_embedded_when_a_dataset_is_saved(tmp_path):
    (tmp_path / "a.png").write_bytes(png(SOURCE))
    dataset = datasets.Dataset.from_list([fields(0, source=str(tmp_path / "a.png"), target=str(tmp_path / "a.png"))])
    dataset = dataset.cast_column("source", datasets.Image()).cast_column("target", datasets.Image())
    dataset.save_to_disk(tmp_path / "data")
    (tmp_path / "a.png").unlink()
    np.testing.assert_array_equal(open_records(tmp_path / "data")[0].load()[0], SOURCE)


def test_images_are_decoded_only_on_request(tmp_path):
    folder = write_folder(tmp_path, [fields(0)])
    (folder / "images/0_a.png").write_bytes(b"no image")
    record = open_records(folder)[0]
    with pytest.raises(UserError, match=r"row 0 \(pair-0\): source: .*0_a\.png"):
        record.load()


@pytest.mark.parametrize(
    "name", ["../outside.png", "images/../../outside.png", "/etc/passwd", "..\\outside.png", "C:\\x.png"]
)
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    (tmp_path / "outside.png").write_bytes(png(SOURCE))
    folder = tmp_path / "data"
    folder.mkdir()
    records = open_records(write_folder(folder, [fields(0), fields(1, target=name)]))
    assert records[0].id == "pair-0"
    with pytest.raises(UserError, match=r"row 1 \(pair-1\): target .* leads out of the data folder"):
        records[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "cooking"}, "unknown task 'cooking'; use one of style_transfer"),
        ({"instruction": ...}, "lacks instruction"),
        ({"edited_prompt": " "}, "edited_prompt is not a text"),
        ({"id": 3}, "row 0: id is not a text"),
        ({"source": 3}, "source is not a file name"),
        ({"source": ..., "target": None}, "lacks source, target"),
        ({"scores": [1]}, "scores is not an object"),
        ({"scores": {"judge": "good"}}, "score 'judge' is not a finite number"),
        ({"scores": {"judge": float("nan")}}, "it holds NaN, which JSON has no word for"),
        ({"scores": {"judge": True}}, "score 'judge' is not a finite number"),
    ],
)
def test_rows_off_the_schema_say_what_is_wrong(tmp_path, changes, message):
    records = open_records(write_folder(tmp_path, [fields(0, **changes)]))
    with pytest.raises(UserError, match=message):
        records[0]


def test_broken_lines_are_rows_and_blank_ones_are_not(tmp_path):
    folder = write_folder(tmp_path, [fields(0), fields(1)])
    good = (folder / "metadata.jsonl").read_text()
    (folder / "metadata.jsonl").write_bytes(b"\xef\xbb\xbf" + good.encode() + b"\n  \n{oops\n[1]\n\xff\n")
    records = open_records(folder)
    assert len(records) == 5
    assert [records[0].id, records[1].id] == ["pair-0", "pair-1"]
    for row in (2, 3, 4):
        with pytest.raises(UserError, match=f"row {row} of .*write one object a line"):
            records[row]


def test_a_dataset_without_images_says_so(tmp_path):
    dataset = datasets.Dataset.from_list([fields(0, source=..., target=...)])
    dataset.save_to_disk(tmp_path / "data")
    with pytest.raises(UserError, match=r"row 0 \(pair-0\): lacks source, target"):
        open_records(tmp_path / "data")[0]


def test_folders_without_a_data_set_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        open_records(tmp_path / "none")
    with pytest.raises(UserError, match="holds no metadata.jsonl"):
        open_records(tmp_path)
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(UserError, match="not a readable datasets dataset"):
        open_records(tmp_path)
    splits = datasets.DatasetDict({"a": as_dataset([fields(0)]), "b": as_dataset([fields(1)])})
    splits.save_to_disk(tmp_path / "ambiguous")
    with pytest.raises(UserError, match="holds the splits a, b"):
        open_records(tmp_path / "ambiguous")


@pytest.mark.parametrize("format", ["auto", *FORMATS])
def test_what_is_neither_a_file_nor_a_folder_as_its_form_wants_is_refused(tmp_path, format):
    (tmp_path / "file").write_text("a,b")
    os.mkfifo(tmp_path / "pipe")
    for name in ("file", "pipe", "file/inside", "/dev/zero", "n" * 300):
        with pytest.raises(UserError, match=re.escape(name[:30])):
            open_records(tmp_path / name, format)[0]
