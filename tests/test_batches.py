"""Batches: made before is what was made of the same contents, and nothing that happens to one edit ends the others."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from imvideoedit.common.errors import UserError
from imvideoedit.editing.edit_file import read_facts, why_made_again
from imvideoedit.editing.job import Job
from imvideoedit.editing.jobs import Entry
from imvideoedit.editing.model_options import ModelOptions, parse_weighted
from imvideoedit.editing.outputs import frame_writer
from imvideoedit.editing.run_jobs import run_jobs
from imvideoedit.methods.adapter_file import read_state
from imvideoedit.video.reader import Clip, write_video
from tests.processes import PATIENCE, SERVER, command_environment
from tests.test_edit import adapter, edit  # noqa: F401 (a fixture)

pytestmark = pytest.mark.slow


def video(path: Path, frames: int = 2, seed: int = 0) -> Path:
    noise = np.random.default_rng(seed).integers(0, 256, (frames, 16, 32, 3), np.uint8)
    write_video(path, noise, Fraction(10))
    return path


def options_of(path: Path, **changes) -> ModelOptions:
    return ModelOptions(((path, 1.0),), **changes)


class Deadly(Job):
    """A job that ends the process which makes it."""

    def open_clip(self) -> Clip:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class Faulty(Job):
    """A job that fails by an error of the program's."""

    def open_clip(self) -> Clip:
        raise KeyError("no such thing")


@pytest.fixture
def entries(tmp_path) -> list[Entry]:
    """Five edits of stills, of which the second and fourth can be changed."""
    found = []
    for number in range(5):
        Image.fromarray(np.full((16, 32, 3), 50 * number, np.uint8)).save(tmp_path / f"{number}.png")
        job = Job(tmp_path / f"{number}.png", "snow", tmp_path / "out" / f"{number}.png")
        found.append(Entry(f"row {number}", job))
    return found


def as_kind(kind: type[Job], entry: Entry) -> Entry:
    assert entry.job is not None
    return replace(entry, job=kind(**vars(entry.job)))


def test_a_clip_that_is_replaced_is_edited_again_and_a_renamed_one_is_not(adapter, tmp_path):  # noqa: F811
    video(tmp_path / "clip.mp4", 4)
    command = (tmp_path, "snow", "--adapter", adapter)
    assert "1 made, 0 made before" in edit(*command).stderr
    video(tmp_path / "clip.mp4", 2, seed=1)
    os.utime(tmp_path / "clip.mp4", (0, 0))  # times say nothing
    done = edit(*command)
    assert "1 made, 0 made before" in done.stderr and "made (again: changed since: input)" in done.stdout
    assert len(Clip(tmp_path / "edited" / "clip_edited.mp4")) == 2
    os.utime(tmp_path / "clip.mp4")
    assert "0 made, 1 made before" in edit(*command).stderr
    (tmp_path / "clip.mp4").rename(tmp_path / "other.mp4")
    row = {"input": "other.mp4", "instruction": "snow", "output": "edited/clip_edited.mp4"}
    (tmp_path / "jobs.jsonl").write_text(json.dumps(row))
    assert "0 made, 1 made before" in edit(tmp_path / "jobs.jsonl", "--adapter", adapter).stderr


def test_an_edit_of_an_earlier_version_is_made_again_and_says_so(adapter, tmp_path):  # noqa: F811
    video(tmp_path / "clip.mp4", 1)
    job = Job(tmp_path / "clip.mp4", "snow", tmp_path / "edited" / "clip_edited.mp4")
    options = options_of(adapter)
    facts = {**job.facts(), "adapter_hash": options.identity, "model": options.contents}
    del facts["input_hash"]
    video_facts = {"imvideoedit": json.dumps(facts)}
    write_video(job.output, np.zeros((1, 16, 32, 3), np.uint8), 10, metadata=video_facts)
    (outcome,) = run_jobs([Entry("row 1", job)], options, ["cpu"])
    assert outcome.state == "made"
    assert outcome.note == "again: an earlier version made it, without a record of the input's content"
    assert read_facts(job.output)["input_hash"] == job.facts()["input_hash"]
    (outcome,) = run_jobs([Entry("row 1", job)], options, ["cpu"])
    assert outcome.state == "skipped"


def test_all_of_an_adapter_file_and_both_outputs_count(adapter, entries, tmp_path):  # noqa: F811
    with safe_open(adapter, "pt") as file:
        header = file.metadata()
    sampler = json.loads(header["training"])
    sampler["sampler"]["steps"] += 1
    del sampler["checks"]  # of the header before
    save_file(read_state(adapter), tmp_path / "other.safetensors", header | {"training": json.dumps(sampler)})
    one, other = options_of(adapter), options_of(tmp_path / "other.safetensors")
    assert one.identity == other.identity and one.contents != other.contents
    (outcome,) = run_jobs(entries[:1], one, ["cpu"])
    job = entries[0].job
    assert outcome.state == "made" and why_made_again(job, one.contents) is None
    assert why_made_again(job, other.contents) == "changed since: model"
    changed = replace(job, seed=1, instruction="rain", settings={"keep": 2.0})
    assert why_made_again(changed, one.contents) == "changed since: instruction, seed, settings"
    both = replace(job, side_by_side=True)
    list(run_jobs([Entry("row 1", both)], one, ["cpu"]))
    assert why_made_again(both, one.contents) is None
    both.files[1].unlink()
    assert why_made_again(both, one.contents) == ""
    Image.new("RGB", (8, 8)).save(both.files[1])
    with pytest.raises(UserError, match="0_side_by_side.png exists and was not made here"):
        why_made_again(both, one.contents)


def test_facts_that_are_none_are_no_traceback(tmp_path):
    for text in ("[1]", "3", "[" * 100_000, "9" * 5000, '{"a":'):
        path = tmp_path / "a.mp4"
        write_video(path, np.zeros((1, 16, 16, 3), np.uint8), 10, metadata={"imvideoedit": text})
        assert read_facts(path) is None


def test_an_edit_of_an_edit_follows_it(adapter, tmp_path):  # noqa: F811
    rows = [{"input": "a.png", "output": "b.png"}, {"input": "b.png", "output": "c.png"}]
    (tmp_path / "jobs.jsonl").write_text("\n".join(json.dumps({**row, "instruction": "snow"}) for row in rows))
    command = (tmp_path / "jobs.jsonl", "--adapter", adapter)
    for shade, words in ((0, "2 made, 0 made before"), (0, "0 made, 2 made before"), (200, "2 made, 0 made before")):
        Image.fromarray(np.full((16, 32, 3), shade, np.uint8)).save(tmp_path / "a.png")
        assert words in edit(*command).stderr


def test_any_error_of_one_edit_is_one_line_and_the_others_are_made(adapter, entries):  # noqa: F811
    entries[1] = as_kind(Faulty, entries[1])
    outcomes = list(run_jobs(entries, options_of(adapter), ["cpu"]))
    assert [outcome.state for outcome in outcomes] == ["made", "failed", "made", "made", "made"]
    assert outcomes[1].note == "KeyError: 'no such thing'"


def test_an_edit_that_ends_its_process_ends_no_other(adapter, entries, monkeypatch):  # noqa: F811
    # Three processes: forked from one that has imported the libraries. The next test starts them as users do.
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: {"spawn": SERVER}[method])
    entries[1], entries[3] = as_kind(Deadly, entries[1]), as_kind(Faulty, entries[3])
    found = {outcome.entry.where: outcome for outcome in run_jobs(entries, options_of(adapter), ["cpu", "cpu"])}
    assert {where for where, outcome in found.items() if outcome.state == "made"} == {"row 0", "row 2", "row 4"}
    assert "was ended" in found["row 1"].note and found["row 3"].note == "KeyError: 'no such thing'"


def test_a_device_that_is_not_there_is_said_once(adapter, tmp_path):  # noqa: F811
    for number in range(2):
        Image.new("RGB", (32, 16)).save(tmp_path / f"{number}.png")
    done = edit(tmp_path, "snow", "--adapter", adapter, "--device", "cpu", "--device", "cuda:99")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: --device cuda:99 cannot be used here")


def test_bad_rows_and_a_damaged_video_stop_no_other(adapter, tmp_path):  # noqa: F811
    Image.new("RGB", (32, 16)).save(tmp_path / "a.png")
    (tmp_path / "cut.mp4").write_bytes(video(tmp_path / "whole.mp4", 9).read_bytes()[:700])
    bad = [{"seed": 99999999999999999999}, {"instruction": "make it \ud83d red"}, {"input": "cut.mp4"}]
    rows = [{"input": "a.png", "instruction": "snow", "output": f"{n}.png"} | row for n, row in enumerate([*bad, {}])]
    (tmp_path / "jobs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = edit(tmp_path / "jobs.jsonl", "--adapter", adapter)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "1 made, 0 made before, 3 failed" in done.stderr and (tmp_path / "3.png").is_file()
    assert len([line for line in done.stderr.splitlines() if line.startswith("failed: ")]) == 3


def test_a_closed_stdout_does_not_end_the_work(adapter, tmp_path):  # noqa: F811
    for number in range(3):
        Image.new("RGB", (32, 16)).save(tmp_path / f"{number}.png")
    command = [sys.executable, "-m", "imvideoedit.edit", tmp_path, "snow", "--adapter", adapter]
    with subprocess.Popen(
        command, env=command_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()  # before the first line
        said = process.stderr.read()
        assert process.wait(PATIENCE) == 0, said
    assert "3 made" in said and "rror" not in said
    assert len(list((tmp_path / "edited").iterdir())) == 3


def test_names_that_are_no_utf_8_are_edited_and_printed(adapter, tmp_path):  # noqa: F811
    name = os.fsdecode(b"caf\xe9.png")
    Image.new("RGB", (32, 16)).save(tmp_path / name)
    done = edit(tmp_path, "snow", "--adapter", adapter)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "edited" / os.fsdecode(b"caf\xe9_edited.png")).is_file()
    assert "caf\\udce9_edited.png: made" in done.stdout


def test_a_name_may_be_as_long_as_the_file_system_takes(adapter, tmp_path):  # noqa: F811
    name = "ä" * 122  # with _edited.png, 255 bytes
    Image.new("RGB", (32, 16)).save(tmp_path / f"{name}.png")
    video(tmp_path / f"b{name[1:]}.mp4", 1)
    done = edit(tmp_path, "snow", "--adapter", adapter)
    assert done.returncode == 0, done.stderr
    long = edit("a" * 300, "snow", "--adapter", adapter)
    assert long.returncode == 2 and "has 300 bytes; give one of at most 255" in long.stderr


@pytest.mark.parametrize("name", ["a.png", "a.mp4"])
def test_stills_are_written_as_carefully_as_videos(tmp_path, monkeypatch, name):
    clip = Clip(video(tmp_path / "clip.mp4", 1))
    frame = next(iter(clip))
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"could not write .*file/a"),
        frame_writer(tmp_path / "file" / name, clip, None, {}),
    ):
        pass
    with pytest.raises(ValueError, match="of the block"), frame_writer(tmp_path / name, clip, None, {}) as write:
        write(frame)
        raise ValueError("of the block")

    def refuse(*paths):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with (
        pytest.raises(UserError, match="Permission denied; check the free space"),
        frame_writer(tmp_path / name, clip, None, {}) as write,
    ):
        write(frame)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "file"]


@pytest.mark.parametrize("weight", ["nan", "inf", "1e400", "x"])
def test_a_weight_is_a_finite_number(weight):
    with pytest.raises(UserError, match="is no weight"):
        parse_weighted(f"a.safetensors={weight}")
