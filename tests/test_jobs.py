"""Lists of edits: every row becomes the job it means, and a wrong row says what is wrong with it."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.editing.job import Job
from imvideoedit.editing.jobs import Entry, read_jobs
from imvideoedit.video.reader import write_video

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
    assert second.files == (tmp_path / "x" / "y.png", tmp_path / "x" / "y_side_by_side.png")
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


def test_texts_in_a_table_may_have_commas_line_breaks_and_quotes(tmp_path):
    (tmp_path / "jobs.csv").write_bytes(
        b'input, instruction\r\na.png,"make it red,\r\nand say ""so"""\r\n\r\nb.png,snow,\r\n,,\r\n'
    )
    first, second = (entry.job for entry in jobs_of(tmp_path / "jobs.csv"))
    assert first.instruction == 'make it red,\r\nand say "so"' and second.instruction == "snow"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("b.png,make it red, keep the rest", "it has 3 fields, but the header 2; put texts with commas in quotes"),
        ('b.png,"make it red" please', "it is no row of CSV, which ends in line 3"),
    ],
)
def test_a_row_of_a_table_that_is_broken_says_how_to_mend_it(tmp_path, line, words):
    (tmp_path / "jobs.csv").write_text(f"input,instruction\na.png,snow\n{line}\nc.png,snow\n")
    entries = jobs_of(tmp_path / "jobs.csv")
    assert [entry.job and entry.job.input.name for entry in entries] == ["a.png", None, "c.png"]
    assert words in entries[1].problem and entries[1].where.endswith("row 2")


def test_a_quote_that_is_not_closed_takes_nothing_silently(tmp_path):
    (tmp_path / "jobs.csv").write_text('input,instruction\na.png,snow\nb.png,"rain\nc.png,snow\n')
    entries = jobs_of(tmp_path / "jobs.csv")
    assert entries[0].job is not None and "close each quote" in entries[1].problem and len(entries) == 2


@pytest.mark.parametrize(
    ("header", "words"),
    [("input;instruction", "semicolons"), ("input\tinstruction", "tabs"), ("input,input", "column input twice")],
)
def test_a_table_whose_header_is_none_is_refused(tmp_path, header, words):
    (tmp_path / "jobs.csv").write_text(f"{header}\na.png;snow\n")
    with pytest.raises(UserError, match=words):
        jobs_of(tmp_path / "jobs.csv")


def test_only_line_breaks_end_the_line_of_an_object(tmp_path):
    words = "one\u2028two\x85three"
    row = json.dumps({"input": "a.png", "instruction": words}, ensure_ascii=False)
    (tmp_path / "jobs.jsonl").write_bytes(f"{row}\r\n".encode())
    (entry,) = jobs_of(tmp_path / "jobs.jsonl")
    assert entry.job is not None and entry.job.instruction == words


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_seeds_keep_all_their_digits(tmp_path, kind):
    seeds = [2**64 - 1, -(2**63), 2**53 + 1]
    if kind == "csv":
        path = tmp_path / "jobs.csv"
        path.write_text("input,instruction,seed\n" + "".join(f"{n}.png,snow,{s}\n" for n, s in enumerate(seeds)))
    else:
        rows = [{"input": f"{n}.png", "instruction": "snow", "seed": s} for n, s in enumerate(seeds)]
        path = write_lines(tmp_path / "jobs.jsonl", *rows)
    assert [entry.job.seed for entry in jobs_of(path)] == seeds


def test_a_folder_is_all_its_videos_and_images(tmp_path):
    for name in ("b.MP4", "a.mov", "c.png", "notes.txt", ".hidden.mp4", "1.srt", "2.log"):
        (tmp_path / name).write_text("words")
    (tmp_path / "edited").mkdir()
    notes = []
    entries = read_jobs(tmp_path, "snow", tmp_path / "out", LIKE, notes.append)
    found = [entry.job for entry in entries]
    assert [job.input.name for job in found] == ["a.mov", "b.MP4", "c.png"]
    assert [job.output.name for job in found] == ["a_edited.mp4", "b_edited.mp4", "c_edited.png"]
    assert all(job.instruction == "snow" and job.output.parent == tmp_path / "out" for job in found)
    names = ".hidden.mp4, 1.srt, 2.log and 1 more"
    assert notes == [f"skipped in {tmp_path}: 4 files that are no video or image, or hidden ({names}) and 1 folder"]


def test_a_folder_is_what_opens_whatever_its_name(tmp_path):
    write_video(tmp_path / "a.mp4", np.zeros((2, 16, 16, 3), np.uint8), 10)
    for name in ("b.MTS", "c.m2ts", "no ending"):
        shutil.copy(tmp_path / "a.mp4", tmp_path / name)
    for name in ("d.tiff", "e.avif"):
        Image.new("RGB", (16, 16)).save(tmp_path / name)
    notes = []
    found = [entry.job for entry in read_jobs(tmp_path, "snow", None, LIKE, notes.append)]
    names = {job.input.name: job.output.name for job in found}
    assert names == {
        **{"a.mp4": "a_edited.mp4", "b.MTS": "b_edited.mp4", "c.m2ts": "c_edited.mp4"},
        **{"d.tiff": "d_edited.png", "e.avif": "e_edited.png", "no ending": "no ending_edited.mp4"},
    }
    assert not notes and all(len(job.open_clip()) == (1 if job.output.suffix == ".png" else 2) for job in found)


def test_outputs_of_inputs_with_one_name_are_kept_apart(tmp_path):
    def outputs(*inputs: str) -> list[str]:
        rows = [{"input": name, "instruction": "snow"} for name in inputs]
        entries = jobs_of(write_lines(tmp_path / "jobs.jsonl", *rows))
        return [str(entry.job.output.relative_to(tmp_path / "edited")) for entry in entries]

    names = ["a/clip.mp4", "b/clip.mp4", "clip.mp4"]
    assert outputs(*names) == ["a/clip_edited.mp4", "b/clip_edited.mp4", "clip_edited.mp4"]
    assert outputs("b/clip.mp4") == ["b/clip_edited.mp4"]  # in another list, too
    assert outputs("clip.mp4", "clip.mov", "x.mp4") == ["clip.mp4_edited.mp4", "clip.mov_edited.mp4", "x_edited.mp4"]
    above = [{"input": f"../{name}/clip.mp4", "instruction": "snow"} for name in "ab"]
    entries = jobs_of(write_lines(tmp_path / "jobs.jsonl", *above))
    assert entries[0].job is not None and "row 1 too; give each its own" in entries[1].problem


def test_an_edit_beside_its_source_is_the_output_of_no_other(tmp_path):
    row = {"input": "a.mp4", "instruction": "snow", "side_by_side": True, "output": "x.mp4"}
    entries = jobs_of(write_lines(tmp_path / "jobs.jsonl", row, {**row, "output": "x_side_by_side.mp4"}))
    assert entries[0].job is not None and "row 1 too" in entries[1].problem


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
        ('{"input": "a.mp4"', "not JSON"),
        ("[1, 2]", "not a JSON object"),
        ('{"input": "a.mp4", "seed": ' + "9" * 5000 + "}", "is too large"),
        ("[" * 100_000, "nested too deeply"),
        ('{"input": "a.mp4", "instruction": "snow", "seed": 1, "seed": 2}', "'seed' is given twice"),
        (
            {"input": "a.mp4", "instruction": "snow", "seed": 99999999999999999999},
            "99999999999999999999... is too large",
        ),
        ({"input": "a.mp4", "instruction": "snow", "seed": -(2**63) - 1}, "seed is -9223372036854775809"),
        ({"input": "a.mp4", "instruction": "snow", "seed": "1e999999999"}, "seed is '1e999999999'"),
        ({"input": "a.mp4", "instruction": "snow", "seed": True}, "seed is true"),
        ({"input": "a.mp4", "instruction": "snow", "start": float("nan")}, "it holds NaN"),
        ({"input": "a.mp4", "instruction": "snow", "steps": 10**9}, "at most 10000"),
        ({"input": "a.mp4", "instruction": "snow", "max_area": 10**15}, "at most 2^30"),
        ({"input": "a.mp4", "instruction": "make it \ud83d red"}, "half of a surrogate pair"),
        ({"input": "a.mp4", "instruction": "snow", "prompt": "\udfff"}, "half of a surrogate pair"),
        ({"input": "a.mp4", "instruction": "snow", "prompt": ["a"]}, 'prompt is ["a"]; give a text'),
        ({"input": "\ud83d.mp4", "instruction": "snow"}, "half of a surrogate pair"),
        ({"input": "a.mp4", "instruction": "snow", "output": "a\0.mp4"}, "zero"),
        ({"input": "a.mp4", "instruction": "snow", "mask": "\ud83d.png"}, "half of a surrogate pair"),
        ({"input": "a.mp4", "instruction": "snow", "input.style": "\ud83d"}, "half of a surrogate pair"),
        ({"input": "a" * 250 + ".mp4", "instruction": "snow"}, "has 261 bytes"),
        ({"input": "ä" * 300, "instruction": "snow"}, "has 600 bytes"),
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
