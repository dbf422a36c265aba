"""A folder that its own edits are written into: a second run edits no edit."""

import json
from pathlib import Path

import pytest
from PIL import Image

from imvideoedit.editing.job import Job
from imvideoedit.editing.jobs import read_jobs


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png", "a_edited.png", "a_edited_side_by_side.png", "b_edited.png", "b_edited_edited.png"):
        Image.new("RGB", (32, 32)).save(tmp_path / name)
    return tmp_path


def test_edits_in_the_same_folder_are_no_sources_and_named(folder):
    said: list[str] = []
    entries = read_jobs(folder, "snow", folder, Job(Path("x"), "", Path("y.png")), said.append)
    assert [entry.job.input.name for entry in entries if entry.job] == ["a.png", "b.png"]
    assert said == [
        "not edited, as they are edits of other files here: a_edited.png, a_edited_side_by_side.png, b_edited.png and "
        "1 more"
    ]


def test_into_another_folder_or_by_a_list_all_are_edited(folder):
    like = Job(Path("x"), "", Path("y.png"))
    assert len(read_jobs(folder, "snow", folder / "edited", like)) == 6
    rows = [{"input": "a.png", "output": "c.png"}, {"input": "c.png", "output": "d.png"}]
    (folder / "jobs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(read_jobs(folder / "jobs.jsonl", "snow", None, like)) == 2
