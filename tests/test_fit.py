"""The fitting command, run as a user runs it: one clip, one adapter, one edit; mistakes cost one line."""

import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from imvideoedit.editing.fitted_clip import FittedClip, load_masks
from imvideoedit.fit import main
from imvideoedit.methods.adapter_file import read_state
from imvideoedit.methods.adapter_header import read_header
from imvideoedit.video.reader import Clip, read_metadata, read_video, write_video
from tests.fits import BOX, FRAMES, SIZE, image_to_video_folder, make_clip
from tests.processes import Command, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clip(wan_folder, tmp_path_factory):
    base = image_to_video_folder(wan_folder, tmp_path_factory.mktemp("base") / "i2v")
    return make_clip(tmp_path_factory.mktemp("clip"), base)


def fit(*arguments: object, **options: Any):
    return run("imvideoedit.fit", *arguments, **options)


@pytest.fixture(scope="module")
def fitted(clip) -> Path:
    """The folder of a fit with a later edited frame."""
    out = clip.folder / "fitted"
    done = fit(*clip.command(out, "--edited", f"0={clip.image('first.png')}", "--edited", f"5={clip.image('5.png')}"))
    assert done.returncode == 0, done.stderr
    assert "followed through the clip by optical flow" in done.stdout and "stage 2" in done.stdout
    return out


def assert_one_line(done: Any, *words: str) -> None:
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert [line.startswith("error: ") for line in lines].count(True) == 1 and lines[-1].startswith("error: ")
    assert "Traceback" not in done.stderr and all(word in lines[-1] for word in words), lines[-1]


def test_outside_the_mask_every_pixel_is_the_clips_and_its_times_stay(clip, fitted):
    source, edited = read_video(clip.file)[0], read_video(fitted / "clip_edited.mp4")[0]
    masks = load_masks(fitted / "mask")
    before, after = Clip(clip.file).info, Clip(fitted / "clip_edited.mp4").info
    assert (after.frames, after.fps, after.width, after.height) == (FRAMES, before.fps, SIZE[1], SIZE[0])
    assert masks.shape == (FRAMES, *SIZE) and 0 < (masks > 0).mean() < 0.5
    facts = json.loads(read_metadata(fitted / "clip_edited.mp4")["imvideoedit"])
    assert facts["used"]["prompt"] == "p3rs0n, a red ball"
    # A lossless edit of the same adapter: an encoder must not decide this.
    output = fitted / "again.mp4"
    how = ("--output", output, "--codec", "lossless", "--mask-feather", 0)
    frame = clip.image("other.png", seed=9)
    done = run("imvideoedit.edit", clip.file, "--adapter", fitted / "adapter.safetensors", "--first-frame", frame, *how)
    assert done.returncode == 0, done.stderr
    again = read_video(output)[0]
    assert np.array_equal(again[masks == 0], source[masks == 0])
    assert (again[masks > 0] != source[masks > 0]).mean() > 0.5 and edited.shape == source.shape


def test_the_header_names_the_clip_and_an_edit_takes_mask_and_prompt_from_the_fit(clip, fitted, tmp_path):
    adapter = fitted / "adapter.safetensors"
    known = FittedClip.of(adapter)
    assert known is not None and (known.name, known.frames, known.prompt) == ("clip.mp4", FRAMES, "a red ball")
    assert read_header(adapter).method == "lora_edit" and "max_area" in read_header(adapter).training["sampler"]
    frame = clip.image("other.png", seed=9)
    done = run(
        "imvideoedit.edit", clip.file, "--adapter", adapter, "--first-frame", frame, "--output", tmp_path / "a.mp4"
    )
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert done.returncode == 0 and "fitted to another clip" not in done.stderr, done.stderr
    assert [any(word in note for note in notes) for word in ("the mask is that", "the prompt is that")] == [True, True]
    assert json.loads(read_metadata(tmp_path / "a.mp4")["imvideoedit"])["used"]["prompt"] == "p3rs0n, a red ball"


def test_another_clip_is_a_warning_of_one_line(clip, fitted, tmp_path):
    other = tmp_path / "other.mp4"
    write_video(other, np.random.default_rng(5).integers(0, 256, (5, *SIZE, 3), np.uint8), 24, codec="lossless")
    adapter, frame = fitted / "adapter.safetensors", clip.image("other.png", seed=9)
    done = run("imvideoedit.edit", other, "snow", "--adapter", adapter, "--first-frame", frame, "--mask", BOX)
    assert done.returncode == 0, done.stderr
    warned = [line for line in done.stderr.splitlines() if "fitted to another clip" in line]
    assert len(warned) == 1 and "clip.mp4" in warned[0] and warned[0].startswith("note: ")
    without = run("imvideoedit.edit", other, "snow", "--adapter", adapter, "--first-frame", frame)
    assert_one_line(without, "needs the input mask")


def test_masks_of_the_fit_that_were_changed_are_not_taken(clip, fitted, tmp_path):
    copied = Path(shutil.copytree(fitted, tmp_path / "copied"))
    Image.new("L", SIZE[::-1], 255).save(copied / "mask" / "00003.png")
    frame = clip.image("other.png", seed=9)
    done = run("imvideoedit.edit", clip.file, "--adapter", copied / "adapter.safetensors", "--first-frame", frame)
    assert_one_line(done, "not those of the fit", "--mask")


def test_the_same_command_makes_nothing_again_and_a_changed_one_what_depends_on_it(clip, fitted):
    command = clip.command(fitted, "--edited", f"0={clip.image('first.png')}", "--edited", f"5={clip.image('5.png')}")
    state, times = read_state(fitted / "adapter.safetensors"), _times(fitted)
    done = fit(*command)
    assert done.returncode == 0, done.stderr
    assert [f"{stage}: made before" in done.stdout for stage in ("prep", "stage 1", "stage 2", "edit")] == [True] * 4
    assert _times(fitted) == times
    changed = fit(*command, "--edited", f"8={clip.image('8.png', seed=3)}", "--dry-run")
    assert changed.returncode == 0 and _times(fitted) == times  # a dry run makes nothing
    changed = fit(*command, "--edited", f"8={clip.image('8.png', seed=3)}")
    assert changed.returncode == 0, changed.stderr
    assert "stage 1: made before" in changed.stdout and "stage 2 again: changed since: edited" in changed.stdout
    now = read_state(fitted / "adapter.safetensors")
    assert any(not np.array_equal(state[name].numpy(), now[name].numpy()) for name in state)


def _times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".owner"}


def test_only_the_first_frame_is_one_stage(clip, tmp_path):
    done = fit(*clip.command(tmp_path / "one"))
    assert done.returncode == 0 and "one stage" in done.stdout, done.stderr
    first, last = (read_state(tmp_path / "one" / f"{name}.safetensors") for name in ("stage_1", "adapter"))
    assert all(np.array_equal(first[name].numpy(), last[name].numpy()) for name in {*first, *last})
    assert FittedClip.of(tmp_path / "one" / "adapter.safetensors") is not None


def test_offloaded_blocks_make_the_same_adapter_to_the_bit(clip, tmp_path):
    states = {}
    for offload in ("off", "on"):
        done = fit(*clip.command(tmp_path / offload, "--offload", offload))
        assert done.returncode == 0, done.stderr
        assert ("one by one while they train" in done.stdout) == (offload == "on")
        states[offload] = read_state(tmp_path / offload / "adapter.safetensors")
    assert all(torch.equal(states["on"][name], tensor) for name, tensor in states["off"].items())
    assert any(tensor.any() for name, tensor in states["on"].items() if "up" in name)
    headers = [read_header(tmp_path / offload / "stage_1.safetensors") for offload in ("off", "on")]
    assert headers[0] == headers[1], "what names the base is taken of its own weights, which are back by then"
    again = fit(*clip.command(tmp_path / "on", "--offload", "off"))
    assert "stage 1: made before" in again.stdout, "how it was made does not change what was made"


def test_low_cost_trains_on_parts(clip, tmp_path):
    path = tmp_path / "long.mp4"
    write_video(path, np.random.default_rng(0).integers(0, 256, (30, *SIZE, 3), np.uint8), 24, codec="lossless")
    command = [path, *clip.command(tmp_path / "out", "--mode", "low-cost", "--steps", 4)[1:]]
    done = fit(*command)
    assert done.returncode == 0 and "30 frames in 3 parts" in done.stdout, done.stderr
    assert len(Clip(tmp_path / "out" / "long_edited.mp4")) == 30


def test_a_dry_run_says_what_it_costs_and_makes_nothing(clip, tmp_path):
    done = fit(*clip.command(tmp_path / "out", "--dry-run"), forked=False)
    assert done.returncode == 0, done.stderr
    assert "TFLOP" in done.stdout and "GiB" in done.stdout and "at least" in done.stdout
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_is_one_line(clip, wan_folder, tmp_path, capsys):
    def wrong(*words: str, **given: Any) -> None:
        more = given.pop("more", ())
        with pytest.raises(SystemExit) as end:
            main([str(each) for each in clip.command(tmp_path / "out", *more, **given)])
        lines = capsys.readouterr().err.strip().splitlines()
        assert end.value.code == 2 and lines[-1].startswith("error: ")
        assert [line.startswith("error: ") for line in lines].count(True) == 1
        assert all(word in lines[-1] for word in words), lines[-1]

    short = tmp_path / "short.mp4"
    write_video(short, np.full((4, *SIZE, 3), 255, np.uint8), 24, codec="lossless")
    black, white = tmp_path / "black.png", tmp_path / "white.png"
    Image.new("L", SIZE[::-1], 0).save(black)
    Image.new("L", SIZE[::-1], 255).save(white)
    wrong("short.mp4", "4 frames", f"{FRAMES}", mask=short)
    wrong("black.png", "black", mask=black)
    wrong("white.png", "white", mask=white)
    wrong("no.png", mask=tmp_path / "no.png")
    wrong("--prompt", prompt=None)
    first = ("--edited", f"0={clip.image('first.png')}")
    wrong("beyond the clip", f"{FRAMES}", more=(*first, "--edited", f"{FRAMES}={clip.image('5.png')}"))
    wrong("wide.png", "32x32", "48x32", more=("--edited", f"0={clip.image('wide.png', (32, 32))}"))
    wrong("--edited 0=FILE", more=("--edited", f"5={clip.image('5.png')}"))
    wrong("--edited NUMBER=FILE", more=("--edited", "first.png"))
    wrong("image-to-video", more=("--backbone", wan_folder))
    wrong("--steps", more=("--steps", 0))
    wrong("--offload on", "--no-checkpointing", more=("--offload", "on", "--no-checkpointing"))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else_is_left_alone(clip, fitted, tmp_path):
    (tmp_path / "mask").mkdir()
    Image.new("L", SIZE[::-1], 255).save(tmp_path / "mask" / "mine.png")
    assert_one_line(fit(*clip.command(tmp_path)), "no fit made", "--out")
    assert (tmp_path / "mask" / "mine.png").is_file()
    other = tmp_path / "other.mp4"
    write_video(other, np.zeros((5, *SIZE, 3), np.uint8), 24, codec="lossless")
    assert_one_line(fit(other, *clip.command(fitted)[1:]), "another clip", "--out")


@dataclass
class DieAt:
    """Kills its process when it is about to rename a file onto a path that holds a text, for the n-th time."""

    text: str
    last: int = 1
    count: int = 0

    def __call__(self) -> None:
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename":
            self.count += self.text in str(arguments[1])
            if self.count == self.last and self.text in str(arguments[1]):
                os.kill(os.getpid(), signal.SIGKILL)


POINTS = [
    *("records/begun.json", "mask", "records/prep.json", "records/stage_1_begun.json", "stage_1/step-00000002.ckpt"),
    *("stage_1.safetensors", "records/stage_1.json", "stage_2/step-00000002.ckpt", "adapter.safetensors"),
    "clip_edited.mp4",
]


@pytest.mark.proof
def test_killed_at_ten_points_the_same_command_ends_with_the_same_files(clip, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    more = ("--edited", f"0={clip.image('first.png')}", "--edited", f"5={clip.image('5.png')}", "--checkpoint-every", 1)
    assert fit(*clip.command(whole, *more)).returncode == 0
    for point in POINTS:
        process = Command("imvideoedit.fit", *clip.command(killed, *more), before=DieAt(f"killed/{point}"))
        process.communicate()
        assert process.returncode == -signal.SIGKILL, point
    done = fit(*clip.command(killed, *more))
    assert done.returncode == 0, done.stderr
    for name in ("stage_1.safetensors", "adapter.safetensors"):
        before, after = read_state(whole / name), read_state(killed / name)
        assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before), name
        assert read_header(whole / name) == read_header(killed / name)  # the file's order of entries is not fixed
    assert np.array_equal(load_masks(killed / "mask"), load_masks(whole / "mask"))
    assert np.array_equal(*(read_video(folder / "clip_edited.mp4")[0] for folder in (killed, whole)))
    assert any(tensor.any() for tensor in read_state(whole / "adapter.safetensors").values())
    names = [{str(path.relative_to(folder)) for path in folder.rglob("*")} for folder in (killed, whole)]
    assert names[0] == names[1]
