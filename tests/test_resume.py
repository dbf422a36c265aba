"""A run that is killed anywhere resumes, and ends as an uninterrupted one."""

import csv
import functools
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from imvideoedit.methods.adapter_file import adapter_hash, read_header
from imvideoedit.training.checkpoints import latest
from tests.pair_folder import write_pairs
from tests.training_runs import Run, signal_at

KILLS = int(os.environ.get("IMVIDEOEDIT_KILLS", "2"))  # for each number of processes
IN_A_ROW = 4  # kills of one run


def overrides(wan_folder: Path, *more: str, processes: int = 1) -> list[str]:
    """A tiny run of two epochs on image pairs of two shapes, with a checkpoint at every other step."""
    return [
        "+experiment=13k", "name=tiny", f"backbone.name={wan_folder}", "backbone.parts=[]", "sampling.max_area=1024",
        "data.path=pairs", "data.num_workers=0", "data.val_share=0.15", "data.cache=cache", "global_batch=4",
        "data.epochs=2", "trainer.precision=32-true", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1",
        "trainer.val_check_interval=1", "callbacks.progress=null",
        "callbacks.checkpoint.every_n_steps=2", "optimizer=adamw", "task.optimizer.lr=1e-3", "task.warmup=2",
        f"trainer={'ddp' if processes > 1 else 'single'}", f"trainer.devices={processes}", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(wan_folder, tmp_path_factory) -> Callable[[int], Path]:
    """A run by so many processes, made once."""

    @functools.cache
    def made(processes: int) -> Path:
        folder = tmp_path_factory.mktemp(f"uninterrupted{processes}")
        write_pairs(folder / "pairs", 26)
        run = Run(folder, overrides(wan_folder, processes=processes), processes)
        assert run.wait() == [0] * processes, run.said()
        return folder

    return made


def steps_logged(folder: Path) -> list[int]:
    with (folder / "runs/tiny/csv/metrics.csv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row.get("train/loss")]


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_at_random_it_ends_with_the_same_adapter(uninterrupted, wan_folder, tmp_path, processes):
    draw, killed = random.Random(processes), 0
    end = read_header(uninterrupted(processes) / "runs/tiny/adapter.safetensors").training["steps"]
    while killed < KILLS:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        write_pairs(folder / "pairs", 26)
        for _ in range(min(IN_A_ROW, KILLS - killed)):
            run = Run(folder, overrides(wan_folder, processes=processes), processes)
            wait_until(run, folder, draw.randrange(latest_step(folder), end + 1), draw)
            killed += run.running()
            run.signal(signal.SIGKILL)
            run.wait()
        run = Run(folder, overrides(wan_folder, processes=processes), processes)
        assert run.wait() == [0] * processes, run.said()
        adapters = [place / "runs/tiny/adapter.safetensors" for place in (folder, uninterrupted(processes))]
        assert adapter_hash(adapters[0]) == adapter_hash(adapters[1])
        print(f"{killed} kills by now, {processes} processes, hash {adapter_hash(adapters[0])}", flush=True)
        assert steps_logged(folder) == sorted(set(steps_logged(folder)))
        assert len(list((folder / "runs/tiny/checkpoints").glob("*.ckpt"))) <= 3


def wait_until(run: Run, folder: Path, goal: int, draw: random.Random) -> None:
    """Until the checkpoint of a step or a later one is there, and then a moment of any length."""
    while run.running() and latest_step(folder) < goal:
        time.sleep(0.01)
    end = time.monotonic() + draw.uniform(0.0, 3.0)
    while run.running() and time.monotonic() < end:
        time.sleep(0.01)


def stopped_after_three_steps(folder: Path, wan_folder: Path, number: int) -> Run:
    """A run of one process with a checkpoint of each step, which a signal has ended."""
    write_pairs(folder / "pairs", 26)
    run = Run(folder, overrides(wan_folder, "callbacks.checkpoint.every_n_steps=1", signal_at(3, number)))
    run.wait()
    return run


def validation_losses(folder: Path) -> list[float]:
    with (folder / "runs/tiny/csv/metrics.csv").open() as file:
        return [float(row["validation/loss"]) for row in csv.DictReader(file) if row.get("validation/loss")]


def logged(folder: Path) -> list[tuple[str, bool]]:
    """The step of each row, and whether it is of a validation."""
    with (folder / "runs/tiny/csv/metrics.csv").open() as file:
        return [(row["step"], bool(row.get("validation/loss"))) for row in csv.DictReader(file)]


def latest_step(folder: Path) -> int:
    checksums = sorted((folder / "runs/tiny/checkpoints").glob("step-*.json"))
    return int(checksums[-1].stem.split("-")[1]) if checksums else 0


@pytest.mark.slow
@pytest.mark.proof
def test_two_processes_learn_what_one_learns(uninterrupted):
    rows = [validation_losses(uninterrupted(processes)) for processes in (1, 2)]
    assert len(rows[0]) > 2 and rows[0] == pytest.approx(rows[1], rel=1e-4)
    checkpoints = [latest(uninterrupted(processes) / "runs/tiny/checkpoints") for processes in (1, 2)]
    assert [facts["processes"] for _, facts in checkpoints] == [1, 2]


@pytest.mark.slow
def test_sigterm_saves_and_ends_well_and_a_damaged_checkpoint_is_passed_over(uninterrupted, wan_folder, tmp_path):
    run = stopped_after_three_steps(tmp_path, wan_folder, signal.SIGTERM)
    assert run.wait() == [0] and "run the same command to resume" in run.said("out"), run.said()
    assert latest_step(tmp_path) in (3, 4) and not (tmp_path / "runs/tiny/adapter.safetensors").exists()
    newest, _ = latest(tmp_path / "runs/tiny/checkpoints")
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    run = Run(tmp_path, overrides(wan_folder, "callbacks.checkpoint.every_n_steps=1"))
    assert run.wait() == [0], run.said()
    assert f"warning: checkpoint runs/tiny/checkpoints/{newest.name} is damaged" in run.said("out")
    adapters = [folder / "runs/tiny/adapter.safetensors" for folder in (tmp_path, uninterrupted(1))]
    assert adapter_hash(adapters[0]) == adapter_hash(adapters[1])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_row_of_the_log_is_lost(uninterrupted, wan_folder, tmp_path, number):
    stopped_after_three_steps(tmp_path, wan_folder, number)
    assert Run(tmp_path, overrides(wan_folder, "callbacks.checkpoint.every_n_steps=1")).wait() == [0]
    assert logged(tmp_path) == logged(uninterrupted(1))


@pytest.mark.slow
def test_another_number_of_processes_resumes_with_the_same_data(uninterrupted, wan_folder, tmp_path):
    run = stopped_after_three_steps(tmp_path, wan_folder, signal.SIGKILL)
    assert run.wait() == [-signal.SIGKILL] and 2 <= latest_step(tmp_path) <= 3
    settings = json.loads((tmp_path / "runs/tiny/begun.json").read_text())
    assert settings["global_batch"] == 4
    run = Run(tmp_path, overrides(wan_folder, "callbacks.checkpoint.every_n_steps=1", processes=2), 2)
    assert run.wait() == [0, 0], run.said()
    assert validation_losses(tmp_path)[-1] == pytest.approx(validation_losses(uninterrupted(1))[-1], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "processes", "words"),
    [
        (("global_batch=6", "data.batch_size=4"), 1, "cannot make global_batch=6"),
        (("global_batch=3",), 2, "1, 3 can"),
        (("data.path=broken",), 1, "row 3 (p3)"),
    ],
)
def test_impossible_settings_cost_one_line(wan_folder, tmp_path, more, processes, words):
    write_pairs(tmp_path / "pairs", 26)
    write_pairs(tmp_path / "broken", 8)
    damaged = tmp_path / "broken" / "3t.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    run = Run(tmp_path, overrides(wan_folder, *more, processes=processes), processes)
    codes = run.wait()
    errors = [line for line in run.said().splitlines() if line.startswith("error: ")]
    assert 2 in codes and len(errors) == 1 and words in errors[0] and "Traceback" not in run.said(), run.said()


@pytest.mark.slow
def test_a_full_disk_stops_with_the_checkpoint_before_intact(wan_folder, tmp_path):
    write_pairs(tmp_path / "pairs", 26)
    disk = tmp_path / "runs"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a small file system can only be made by root")
    try:
        run = Run(tmp_path, overrides(wan_folder, "callbacks.checkpoint.every_n_steps=1", "logger=none"))
        codes = run.wait()
        errors = [line for line in run.said().splitlines() if line.startswith("error: ")]
        assert codes == [2] and len(errors) == 1 and "cannot be written" in errors[0], run.said()
        assert "resumes from step" in errors[0] and latest(disk / "tiny/checkpoints") is not None
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_with_the_pairs_named(wan_folder, tmp_path):
    write_pairs(tmp_path / "pairs", 26)
    more = (
        "task.optimizer.lr=1e30",
        "trainer.gradient_clip_val=null",
        "task.warmup=0",
        "trainer.val_check_interval=99",
    )
    run = Run(tmp_path, overrides(wan_folder, *more))
    codes = run.wait()
    errors = [line for line in run.said().splitlines() if line.startswith("error: ")]
    assert codes == [2] and len(errors) == 1 and "not finite" in errors[0], run.said()
    assert "the pairs p" in errors[0] and "last good checkpoint" in errors[0]
