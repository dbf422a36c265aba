"""From training to the edited file and its score: the commands serve a method that only the tests know."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imvideoedit.editing.edit_file import read_facts
from imvideoedit.editing.jobs import Job
from imvideoedit.evaluation.nano.adapter import score_adapter
from imvideoedit.evaluation.nano.exact import held_out_edits
from imvideoedit.methods.adapter_file import read_header, read_state
from imvideoedit.methods.known import METHODS
from imvideoedit.video.pngs import save_png
from imvideoedit.video.reader import read_video, write_video
from tests.processes import run
from tests.toy_method import Toy
from tests.training_runs import Run

TRAINING = (
    *("+experiment=nano", "~method", "+method._target_=tests.toy_method.Toy", "name=toy", "data.frames=5"),
    *("data.pairs=4", "data.validation_pairs=1", "data.batch_size=1", "data.resolution=32", "trainer.max_steps=50"),
    *("task.auxiliary=null", "task.schedule=constant", "task.warmup=1", "trainer.precision=32-true"),
    *("trainer.accelerator=cpu", "trainer.val_check_interval=50", "trainer.log_every_n_steps=1"),
    *("callbacks.preview=null", "callbacks.checkpoint.every_n_steps=50", "callbacks.progress=null"),
    *("sampling.steps=2", "sampling.max_area=1024", "sampling.max_frames=17", "callbacks.export.dtype=float32"),
)


def know_the_toy() -> None:
    """In a command's process, before it runs."""
    METHODS[Toy.name] = Toy


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(METHODS, Toy.name, Toy)


def trained(folder: Path, *more: str, processes: int = 1) -> Path:
    training = Run(folder, [*TRAINING, f"trainer={'ddp' if processes > 1 else 'single'}", *more], processes)
    assert training.wait() == [0] * processes, training.said()
    return folder / "runs/toy/adapter.safetensors"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    return trained(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Path:
    """A held-out edit as files: a lossless video of 33 frames, its exact first frame and the mask of its object."""
    folder = tmp_path_factory.mktemp("example")
    edit = held_out_edits(1, tasks=["color_texture"])[0]
    source, exact, _ = edit.render(33, (32, 32))
    write_video(folder / "clip.mkv", source, 8, codec="lossless")
    save_png(folder / "first.png", exact[0], {})
    save_png(folder / "wrong.png", exact[0, :16], {})
    mask_FHW = edit.inputs(33, (32, 32))["mask"]
    for number, mask in enumerate(mask_FHW):
        (folder / "mask").mkdir(exist_ok=True)
        Image.fromarray(np.uint8(255) * (mask > 0)).save(folder / f"mask/{number:03d}.png")
    (folder / "instruction.txt").write_text(edit.instruction)
    return folder


def edit_command(adapter: Path, example: Path, output: Path, *more: str):
    given = (example / "clip.mkv", (example / "instruction.txt").read_text(), "--adapter", adapter, "--output", output)
    return run("imvideoedit.edit", *given, "--codec", "lossless", *more, before=know_the_toy)


def with_inputs(example: Path) -> tuple[str, ...]:
    return "--first-frame", str(example / "first.png"), "--mask", str(example / "mask"), "--mask-feather", "0"


def test_fifty_steps_lower_the_loss_and_move_all_that_is_trained_and_the_header_lists_the_inputs(adapter):
    with next(adapter.parent.rglob("metrics.csv")).open(newline="") as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert len(losses) == 50 and np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
    header = read_header(adapter)
    assert header.method == "toy" and [each["name"] for each in header.inputs] == ["first_frame", "mask"]
    state = read_state(adapter)
    assert state.keys() == {"columns.weight", "read.weight", "write.weight", "write.bias"}
    assert all(tensor.abs().max() > 1e-4 for tensor in state.values())


def test_the_command_takes_the_inputs_and_nothing_outside_the_mask_changes(adapter, example, tmp_path):
    edited = tmp_path / "edited.mkv"
    done = edit_command(adapter, example, edited, *with_inputs(example))
    assert done.returncode == 0, done.stderr
    source, result = read_video(example / "clip.mkv")[0], read_video(edited)[0]
    mask = np.stack([np.asarray(Image.open(path)) > 0 for path in sorted((example / "mask").iterdir())])
    assert result.shape == source.shape and 0 < mask.mean() < 1
    assert np.array_equal(result[~mask], source[~mask]) and not np.array_equal(result[mask], source[mask])
    windows = tmp_path / "windows.mkv"
    done = edit_command(adapter, example, windows, *with_inputs(example), "--memory", "group", "--max-frames", "17")
    assert done.returncode == 0, done.stderr
    assert np.array_equal(read_video(windows)[0], result)  # the adapter's own windows, and parts that come and go


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "needs the input mask (mask), which is not given"),  # a first frame would be made
        (("--first-frame", "first.png"), "needs the input mask"),
        (("--first-frame", "first.png", "--mask", "mask", "--reference", "first.png"), "does not know"),
        (("--first-frame", "wrong.png", "--mask", "mask"), "wrong.png"),
    ],
)
def test_what_is_missing_unknown_or_of_another_shape_is_one_line(adapter, example, tmp_path, given, words):
    places = [str(example / each) if not each.startswith("--") else each for each in given]
    done = edit_command(adapter, example, tmp_path / "edited.mkv", *places)
    assert done.returncode == 2 and words in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert not (tmp_path / "edited.mkv").exists()


def test_the_benchmark_scores_it_with_exact_inputs(adapter, tmp_path):
    score_adapter(tmp_path, str(adapter), "cpu", per_task=1, frames=[5], steps=1)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["inputs"] == ["first_frame", "mask"] and 0 < result["lengths"]["5"]["overall"] < 100


def test_a_manifest_gives_it_what_its_columns_name(adapter, example, tmp_path):
    """Three rows by command: all that it needs, another first frame, and one that lacks the mask."""
    shutil.copytree(example, tmp_path / "bench")
    whole = {"source": "clip.mkv", "instruction": (example / "instruction.txt").read_text()}
    whole |= {"first_frame": "first.png", "input.mask": "mask"}
    rows = [{"id": "whole"}, {"id": "other", "first_frame": "mask/000.png"}, {"id": "bare", "input.mask": ""}]
    (tmp_path / "bench/list.jsonl").write_text("\n".join(json.dumps(whole | row) for row in rows))
    order = ["+suite=benchmark", f"benchmark={tmp_path}/bench/list.jsonl", f"adapter={adapter}", f"out={tmp_path}/out"]
    done = run("imvideoedit.evaluate", *order, "suite.scorers.open=null", "device=cpu", before=know_the_toy)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("failed"))
    assert "bare: the adapter adapter.safetensors needs the input mask (mask), which is not given" in line
    edited = [read_video(tmp_path / f"out/edits/{name}.mp4")[0] for name in ("whole", "other")]
    assert len(edited[0]) == 33 and not np.array_equal(*edited)
    facts = [read_facts(tmp_path / f"out/edits/{name}.mp4")["inputs"] for name in ("whole", "other")]
    asked = Job(example / "clip.mkv", "", tmp_path / "x.mp4", inputs={"first_frame": example / "first.png"}).facts()
    assert facts[0]["first_frame"] == asked["inputs"]["first_frame"] != facts[1]["first_frame"]


@pytest.mark.slow
def test_two_processes_train_it_under_checkpointing(wan_folder, tmp_path):
    more = ("trainer.devices=2", "task.gradient_checkpointing=true", "trainer.max_steps=3")
    adapter = trained(tmp_path, f"backbone.name={wan_folder}", *more, processes=2)
    assert read_header(adapter).training["steps"] == 3
