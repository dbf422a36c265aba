"""A batch as a user runs it: nothing is made twice, and a bad job stops none of the others."""

import json
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.editing.edit_file import is_made, read_facts
from imvideoedit.editing.jobs import Job
from imvideoedit.video.reader import Clip, read_metadata, write_video
from tests.processes import Command
from tests.test_edit import adapter, edit  # noqa: F401 (a fixture)

pytestmark = pytest.mark.slow


@pytest.fixture
def listed(tmp_path) -> Path:
    """A list of twenty edits, of which two cannot be made."""
    rows = []
    for number in range(18):
        frames = np.random.default_rng(number).integers(0, 256, (2, 16, 32, 3), np.uint8)
        write_video(tmp_path / f"{number}.mp4", frames, Fraction(10))
        rows.append({"input": f"{number}.mp4", "instruction": "snow", "seed": number})
    (tmp_path / "text.mp4").write_text("no video")
    rows[5:5] = [{"input": "missing.mp4", "instruction": "snow"}, {"input": "text.mp4", "instruction": "snow"}]
    path = tmp_path / "jobs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def made(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("edited/[0-9]*_edited.mp4")}


def test_twenty_jobs_killed_and_started_again_are_each_made_once(listed, adapter, tmp_path):  # noqa: F811
    process = Command("imvideoedit.edit", listed, "--adapter", adapter)
    while len(made(tmp_path)) < 4 and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    before = made(tmp_path)
    assert 4 <= len(before) < 18
    done = edit(listed, "--adapter", adapter)
    assert done.returncode == 1, done.stderr
    after = made(tmp_path)
    assert len(after) == 18 and before.items() <= after.items()
    assert f"{18 - len(before)} made, {len(before)} made before, 2 failed" in done.stderr
    assert "missing.mp4" in done.stderr and "text.mp4" in done.stderr and "Traceback" not in done.stderr
    leftovers = [path for path in (tmp_path / "edited").iterdir() if path.name not in after]
    assert all(path.name.startswith(".") for path in leftovers)  # of the killed process alone
    assert json.loads(read_metadata(tmp_path / "edited" / "7_edited.mp4")["imvideoedit"])["seed"] == 7


def test_two_processes_share_a_folder(adapter, tmp_path):  # noqa: F811
    for number in range(4):
        write_video(tmp_path / f"{number}.mp4", np.full((1, 16, 32, 3), 60 * number, np.uint8), Fraction(10))
    Image.fromarray(np.full((20, 24, 3), 90, np.uint8)).save(tmp_path / "still.png")
    done = edit(tmp_path, "snow", "--adapter", adapter, "--device", "cpu", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert len(made(tmp_path)) == 4 and "5 made" in done.stderr
    with Image.open(tmp_path / "edited" / "still_edited.png") as picture:
        assert picture.size == (24, 20)
    assert read_facts(tmp_path / "edited" / "still_edited.png")["instruction"] == "snow"
    again = edit(tmp_path, "rain", "--adapter", adapter)
    assert "5 made" in again.stderr  # another instruction is another edit


def test_a_file_that_is_not_ours_is_left_alone(adapter, tmp_path):  # noqa: F811
    write_video(tmp_path / "a.mp4", np.zeros((1, 16, 32, 3), np.uint8), Fraction(10))
    job = Job(tmp_path / "a.mp4", "snow", tmp_path / "a.mp4")
    with pytest.raises(UserError, match="not made here"):
        is_made(job, "any")
    assert Clip(tmp_path / "a.mp4").info.frames == 1
