"""The editing command on files of all kinds: what the output can hold is written, else one line comes first."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imvideoedit.editing.edit_file import read_facts
from imvideoedit.video.reader import Clip
from tests.clips import flat_frames, make_clip
from tests.odd_files import make_animation, make_heic, make_rich_clip
from tests.processes import run

pytestmark = pytest.mark.slow
TEXT = "make the red box blue"


def edit(source: Path, output: Path) -> subprocess.CompletedProcess:
    return run("imvideoedit.edit", source, TEXT, "--steps", 1, "--output", output)


def test_a_still_is_written_in_the_format_of_its_name_with_its_facts(tmp_path):
    Image.fromarray(flat_frames([90], 64, 64)[0]).save(tmp_path / "a.png")
    done = edit(tmp_path / "a.png", tmp_path / "b.jpg")
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "b.jpg").format == "JPEG"
    facts = read_facts(tmp_path / "b.jpg")
    assert facts is not None and facts["instruction"] == TEXT and facts["used"]["steps"] == 1


def test_an_animation_becomes_a_video_of_as_many_frames_and_no_picture(tmp_path):
    source = make_animation(tmp_path / "a.webp", list(flat_frames([40, 90, 140], 64, 64)))
    done = edit(source, tmp_path / "b.mp4")
    assert done.returncode == 0 and "(3 frames, 64x64, 10 fps)" in done.stdout, done.stderr
    assert len(Clip(tmp_path / "b.mp4")) == 3
    for output in ("c.png", "c.jpg", "c.webp"):
        done = edit(source, tmp_path / output)
        assert done.returncode == 2 and done.stderr.strip().splitlines()[-1] == (
            f"error: {tmp_path / output} can hold one picture, not 3 frames; "
            "name it .mp4, or a folder and give the codec png"
        )
        assert not (tmp_path / output).exists()


def test_a_photo_of_tiles_is_one_line(tmp_path):
    tiles = [np.full((64, 64, 3), level, np.uint8) for level in (20, 80, 140, 200)]
    done = edit(make_heic(tmp_path / "a.heic", tiles, columns=2), tmp_path / "b.png")
    assert done.returncode == 2 and "made of tiles" in done.stderr and len(done.stderr.splitlines()) == 1


def test_what_is_lost_is_one_note_and_chapters_stay(tmp_path):
    done = edit(make_rich_clip(tmp_path / "a.mkv", flat_frames([20] * 10, 64, 64)), tmp_path / "b.mp4")
    assert done.returncode == 0, done.stderr
    notes = [line for line in done.stderr.splitlines() if "does not keep" in line]
    assert notes == [f"note: {tmp_path / 'b.mp4'} does not keep of the source: 1 subtitle track (srt)"]


def test_joined_streams_are_edited(tmp_path):
    part = make_clip(tmp_path / "a.ts", flat_frames([20, 60, 100], 64, 64), sounds=["aac"])
    (tmp_path / "b.ts").write_bytes(part.read_bytes() * 2)
    done = edit(tmp_path / "b.ts", tmp_path / "c.mp4")
    assert done.returncode == 0 and len(Clip(tmp_path / "c.mp4")) == 6, done.stderr
