"""Lists of edits: every row becomes the job it means, and a wrong row says what is wrong with it."""

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imvideoedit.common.errors import UserError
from imvideoedit.editing.jobs import Entry, Job, read_jobs

LIKE = Job(Path(), "", Path(), seed=4, settings={"steps": 3})


def jobs_of(path: Path, instruction: str | None = None, output: Path | None = None) -> list[Entry]:
    return read_jobs(path, instruction, output, LIKE)


def write_lines(path: Path, *rows) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def test_a_row_says_what_differs_from_the_rest(tmp_path):
    path = write_lines(
        tmp_path / "jobs.jsonl",
        {"input": "a.mp4", "instruction": "make it red"},
        "",
        {"input": "b/c.png", "seed": 7, "steps": "5", "keep": 2.5, "side_by_side": True, "output": "x/y.png"},
    )
    first, second = (entry.job for entry in jobs_of(path, "default words"))
    assert first == Job(
        tmp_path / "a.mp4", "make it red", tmp_path / "edited" / "a_edited.mp4", seed=4, settings={"steps": 3}
    )
    assert (second.instruction, second.seed, second.side_by_side) == ("default words", 7, True)
    assert second.settings == {"steps": 5, "keep": 2.5} and second.output == tmp_path / "x" / "y.png"


def test_a_table_and_a_list_of_lines_mean_the_same(tmp_path):
    rows = [{"input": "ä.mov", "instruction": 'say "so", twice', "start": "1.5", "end": ""}]
    with (tmp_path / "jobs.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    lines = write_lines(tmp_path / "jobs.jsonl", *rows)
    assert [e.job for e in jobs_of(tmp_path / "jobs.csv")] == [e.job for e in jobs_of(lines)]
    assert jobs_of(lines)[0].job.start == 1.5 and jobs_of(lines)[0].job.end is None


def test_a_folder_is_all_its_videos_and_images(tmp_path):
    for name in ("b.MP4", "a.mov", "c.png", "notes.txt"):
        (tmp_path / name).touch()
    found = [entry.job for entry in jobs_of(tmp_path, "snow", tmp_path / "out")]
    assert [job.input.name for job in found] == ["a.mov", "b.MP4", "c.png"]
    assert [job.output.name for job in found] == ["a_edited.mp4", "b_edited.mp4", "c_edited.png"]
    assert all(job.instruction == "snow" and job.output.parent == tmp_path / "out" for job in found)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"instruction": "snow"}, "no input"),
        ({"input": "a.mp4"}, "no instruction"),
        ({"input": "a.mp4", "instruction": "snow", "step": 3}, "'step'"),
        ({"input": "a.mp4", "instruction": "snow", "steps": "many"}, "steps is 'many'"),
        ({"input": "a.mp4", "instruction": "snow", "steps": 2.5}, "whole number"),
        ({"input": "a.mp4", "instruction": "snow", "steps": 0}, "steps is 0"),
        ({"input": "a.mp4", "instruction": "snow", "side_by_side": "maybe"}, "maybe"),
        ('{"input": "a.mp4"', "no JSON"),
        ("[1, 2]", "no JSON object"),
    ],
)
def test_a_wrong_row_says_so_and_the_others_stay(tmp_path, row, words):
    good = {"input": "z.mp4", "instruction": "snow"}
    entries = jobs_of(write_lines(tmp_path / "jobs.jsonl", good, row, {**good, "input": "y.mp4"}))
    assert [entry.job is None for entry in entries] == [False, True, False]
    assert words in entries[1].problem and "row 2" in entries[1].where


def test_two_rows_cannot_write_one_file(tmp_path):
    row = {"input": "a.mp4", "instruction": "snow"}
    entries = jobs_of(write_lines(tmp_path / "jobs.jsonl", row, {**row, "instruction": "rain"}))
    assert entries[0].job is not None and "row 1 too" in entries[1].problem


def test_nothing_to_do_and_no_text_are_refused(tmp_path):
    with pytest.raises(UserError, match="nothing to edit"):
        jobs_of(write_lines(tmp_path / "jobs.jsonl"))
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="UTF-8"):
        jobs_of(tmp_path / "bytes.csv")


@given(st.dictionaries(st.sampled_from(["input", "instruction", "steps", "keep", "seed"]), st.text(max_size=5)))
def test_any_row_is_a_job_or_a_problem(tmp_path_factory, row):
    folder = tmp_path_factory.mktemp("row")
    (entry,) = jobs_of(write_lines(folder / "jobs.jsonl", row))
    assert (entry.job is None) == bool(entry.problem)
