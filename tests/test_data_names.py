"""Files of data sets as other systems name them, and what must not be taken or left out without a word."""

import json
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.common.spelling import as_spelled
from imvideoedit.data.records import open_records
from imvideoedit.data.splits import parquet_in

ONE, TWO = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")


def image(path: Path, level: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), (level,) * 3).save(path)
    return path


def pair(folder: Path, stem: str, other: str | None = None) -> None:
    image(folder / "source" / f"{stem}.png", 40)
    image(folder / "target" / f"{other or stem}.png", 160)


@pytest.mark.parametrize("ending", [".TXT", ".caption", ".Caption"])
def test_the_targets_caption_counts_whatever_its_ending(tmp_path, ending):
    pair(tmp_path, "a")
    (tmp_path / "source/a.txt").write_text("before")
    (tmp_path / f"target/a{ending}").write_text("after")
    assert open_records(tmp_path)[0].texts == {"edited_prompt": "after", "source_prompt": "before"}


def test_two_captions_of_one_target_are_refused(tmp_path):
    pair(tmp_path, "a")
    for ending in (".txt", ".caption"):
        (tmp_path / f"target/a{ending}").write_text(ending)
    with pytest.raises(UserError, match=r"target/a\.caption and target/a\.txt are both its caption"):
        open_records(tmp_path)[0]


def test_files_that_are_no_part_of_the_pairs_are_named(tmp_path):
    pair(tmp_path, "a")
    (tmp_path / "target/a.txt").write_text("after")
    assert "not used" not in open_records(tmp_path).form
    for name in ("source/b.jxl", "target/b.jxl", "source/.DS_Store", "target/._a.png"):
        (tmp_path / name).write_bytes(b"x")
    rows = open_records(tmp_path)
    assert len(rows) == 1 and rows.form.endswith("; not used: source/b.jxl, target/b.jxl")


@pytest.mark.parametrize(("source", "target"), [(ONE, TWO), (TWO, ONE)])
def test_letters_with_accents_are_equal_however_they_are_coded(tmp_path, source, target):
    pair(tmp_path, source, target)
    (tmp_path / f"target/{target}.txt").write_text("after")
    (record,) = list(open_records(tmp_path))
    assert [int(record.read(side).mean()) for side in ("source", "target")] == [40, 160]
    lines = tmp_path / "pairs.jsonl"
    lines.write_text(json.dumps({"source": f"source/{target}.png", "target": f"target/{source}.png", "prompt": "x"}))
    (record,) = list(open_records(lines))
    assert [int(record.read(side).mean()) for side in ("source", "target")] == [40, 160]


def test_names_of_windows_are_found_and_still_stay_in_the_folder(tmp_path):
    pair(tmp_path / "data", "a")
    image(tmp_path / "a.png")
    lines = tmp_path / "data/pairs.jsonl"
    row = {"source": "source\\a.png", "target": "target\\a.png", "prompt": "x"}
    lines.write_text("".join(json.dumps(each) + "\n" for each in (row, row | {"target": "..\\a.png"})))
    rows = open_records(lines)
    assert [int(rows[0].read(side).mean()) for side in ("source", "target")] == [40, 160]
    with pytest.raises(UserError, match="leads out of the data folder"):
        rows[1]
    image(tmp_path / "data/source\\a.png")  # a name that is there as it is written comes first
    assert as_spelled(tmp_path / "data", "source\\a.png") == "source\\a.png"


def test_hidden_folders_of_notebooks_and_caches_hold_no_data(tmp_path):
    for name in ("train.parquet", "en/train-0.parquet", ".ipynb_checkpoints/train-checkpoint.parquet", "._t.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(file.relative_to(tmp_path)) for file in parquet_in(tmp_path)] == ["en/train-0.parquet", "train.parquet"]
    assert len(parquet_in(tmp_path / ".ipynb_checkpoints")) == 1  # where it is asked for


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('s.png,t.png,"make it red\ns.png,t.png,blue\ns.png,t.png,"green"\n', "up to line 4 .*close each quote"),
        ('s.png,t.png,"make it red\ns.png,t.png,blue\n', "close each quote"),
        ('s.png,t.png,"make the "red" box blue"\n', "up to line 2 .*double those in texts"),
    ],
)
def test_a_quote_in_a_table_takes_no_rows_and_loses_no_words(tmp_path, lines, words):
    for name in ("s.png", "t.png"):
        image(tmp_path / name)
    table = tmp_path / "pairs.csv"
    table.write_text(f"source,target,instruction\n{lines}")
    with pytest.raises(UserError, match=words):
        open_records(table)
    table.write_text('source,target,instruction\ns.png,t.png,"the ""red""\nbox"\ns.png,t.png,5" wider\n')
    assert [row.texts["instruction"] for row in open_records(table)] == ['the "red"\nbox', '5" wider']


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    (tmp_path / "pairs.csv").write_text("source,target,instruction,instruction\ns.png,t.png,first,second\n")
    with pytest.raises(UserError, match="has the column instruction twice"):
        open_records(tmp_path / "pairs.csv")
