"""The editing command, run as a user runs it: what goes out matches what came in, and mistakes cost one line."""

import functools
import json
import resource
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.methods.adapter_file import AdapterHeader, adapter_hash, save_adapter
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.video.images import load_rgb
from imvideoedit.video.reader import Clip, read_metadata, read_video, write_video
from imvideoedit.wan.backbone import load_backbone
from tests.conftest import awaken, tiny_transformer
from tests.processes import CHECKOUT, PATIENCE, Command, command_environment, interruptible, run  # noqa: F401

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def adapter(wan_folder, tmp_path_factory) -> Path:
    backbone = load_backbone(str(wan_folder), device="cpu")
    method = PredictUpdate()
    method.install(backbone.transformer)
    awaken(method)
    path = tmp_path_factory.mktemp("adapter") / "adapter.safetensors"
    sampler = SamplingConfig(max_area=16 * 32, max_frames=5, steps=2, guidance=2.0)
    save_adapter(method, path, AdapterHeader.describe(method, backbone, {"sampler": vars(sampler)}))
    return path


@pytest.fixture
def clip(tmp_path) -> Path:
    frames = np.random.default_rng(0).integers(0, 256, (7, 36, 50, 3), np.uint8)
    write_video(tmp_path / "clip.mp4", frames, Fraction(30000, 1001))
    return tmp_path / "clip.mp4"


def edit(*arguments, **options) -> subprocess.CompletedProcess:
    return run("imvideoedit.edit", *arguments, **options)


def assert_one_line(done: subprocess.CompletedProcess, *words: str) -> None:
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len([line for line in lines if line.startswith("error: ")]) == 1 and lines[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
    assert all(word in lines[-1] for word in words), lines[-1]


def test_rate_length_and_size_stay_and_the_file_says_how_it_was_made(clip, adapter, tmp_path):
    more = ("--seed", 5, "--side-by-side", "--source-prompt", "snow", "--codec", "lossless")
    done = edit(clip, "a red ball", "--adapter", adapter, *more, forked=False)
    assert done.returncode == 0, done.stderr
    output, beside = tmp_path / "clip_edited.mp4", tmp_path / "clip_edited_side_by_side.mp4"
    before, after = Clip(clip).info, Clip(output).info
    assert (after.frames, after.fps, after.width, after.height) == (7, before.fps, 50, 36)
    source, edited = read_video(clip)[0], read_video(output)[0]
    assert np.abs(source.astype(int) - edited).mean() > 5
    assert np.array_equal(read_video(beside)[0], np.concatenate([source, edited], axis=2))
    facts = json.loads(read_metadata(output)["imvideoedit"])
    assert facts["seed"] == 5 and facts["used"]["steps"] == 2 and facts["adapter_hash"] == adapter_hash(adapter)
    assert facts["used"]["prompt"] == facts["instruction"] == "a red ball" and facts["source_prompt"] == "snow"
    assert set(facts["versions"]) == {"imvideoedit", "torch", "diffusers"}
    assert "4/4 passes" in done.stderr  # two windows, two steps


@pytest.mark.parametrize("output", ["edited.mp4", "edited.mov", "edited"])
def test_outside_a_box_every_pixel_of_a_lossless_output_is_the_sources(clip, adapter, tmp_path, output):
    codec = "lossless" if "." in output else "png"
    mask = ("--mask", "box:10,4,20,16", "--mask-feather", 3, "--keep", 5, "--codec", codec)
    done = edit(clip, "snow", "--adapter", adapter, "--output", tmp_path / output, *mask)
    assert done.returncode == 0, done.stderr
    source = read_video(clip)[0]
    made = tmp_path / output
    edited = read_video(made)[0] if "." in output else np.stack([load_rgb(path) for path in sorted(made.iterdir())])
    assert edited.shape == source.shape
    outside = np.ones((36, 50), bool)
    outside[4 - 2 : 20 + 2, 10 - 2 : 30 + 2] = False  # the feather ends at the third pixel
    assert np.array_equal(edited[:, outside], source[:, outside])
    assert (edited[:, 4:20, 10:30] != source[:, 4:20, 10:30]).mean() > 0.5


def test_a_mask_that_does_not_fit_is_one_line(clip, adapter, tmp_path):
    assert_one_line(edit(clip, "snow", "--adapter", adapter, "--mask", "box:40,0,20,5"), "out of the video", "50x36")
    assert_one_line(edit(clip, "snow", "--adapter", adapter, "--mask", "no.png"), "no.png", "the input mask")
    assert_one_line(edit(clip, "snow", "--adapter", adapter, "--reference", clip), "adapter.safetensors", "reference")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4"]


def test_inputs_that_are_no_video(adapter, tmp_path):
    text, empty = tmp_path / "text.mp4", tmp_path / "empty.mp4"
    text.write_text("this is no video\n" * 50)
    empty.touch()
    assert_one_line(edit(text, "snow", "--adapter", adapter), str(text))
    assert_one_line(edit(empty, "snow", "--adapter", adapter), str(empty), "empty")
    assert_one_line(edit(tmp_path / "none.mp4", "snow", "--adapter", adapter), "none.mp4", "no video")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.mp4", "text.mp4"]


def test_adapters_that_do_not_serve(clip, adapter, wan_folder, tmp_path):
    assert_one_line(edit(clip, "snow", "--adapter", tmp_path / "none.safetensors"), "no adapter", "none.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(adapter.read_bytes()[:-100])
    assert_one_line(edit(clip, "snow", "--adapter", damaged), str(damaged), "complete safetensors")
    backbone = load_backbone(str(wan_folder), device="cpu")
    backbone.transformer = tiny_transformer(seed=99)
    method = PredictUpdate()
    method.install(backbone.transformer)
    foreign = tmp_path / "foreign.safetensors"
    save_adapter(method, foreign, AdapterHeader.describe(method, backbone, {}))
    assert_one_line(edit(clip, "snow", "--adapter", foreign), "foreign.safetensors", "backbone")
    assert not (tmp_path / "clip_edited.mp4").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--output", "edited.avi"), (".mp4",)),
        (("--output", "no/such/folder/edited.mp4"), ("folder",)),
        (("--output", "clip.mp4"), ("is the input",)),
        (("--steps", "0"), ("--steps",)),
        (("--guidance", "nan"), ("--guidance",)),
    ],
)
def test_arguments_are_checked_first(clip, adapter, options, words):
    assert_one_line(edit(clip, "snow", "--adapter", adapter, *options, cwd=clip.parent), *words)


def test_a_disk_that_takes_no_more_leaves_nothing_half_written(clip, adapter, tmp_path):
    limited = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (2000, 2000))
    done = edit(clip, "snow", "--adapter", adapter, before=limited)
    assert_one_line(done, "clip_edited.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4"]


def test_ctrl_c_leaves_no_half_file(clip, adapter, tmp_path):
    process = Command("imvideoedit.edit", clip, "snow", "--adapter", adapter, "--steps", 9999)
    end = time.monotonic() + PATIENCE
    while len(list(tmp_path.iterdir())) < 2:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130 and "Traceback" not in said, said
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_ctrl_c_while_libraries_are_loaded_is_one_line_too(clip, adapter, tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "imvideoedit.edit", clip, "snow", "--adapter", adapter]
    process = subprocess.Popen(
        command, env=command_environment(), stderr=subprocess.PIPE, text=True, preexec_fn=interruptible
    )
    assert process.stderr is not None
    assert any(line.split()[-1] == "torch" for line in process.stderr)  # a line for each module, once it is there
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 130 and "Traceback" not in said, said
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_device_that_is_not_there(clip, adapter):
    assert_one_line(edit(clip, "snow", "--adapter", adapter, "--device", "cuda:99"), "--device cuda:99")
