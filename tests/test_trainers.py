"""Every sharded trainer learns the same, and each loads the others' adapters."""

import csv
import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from imvideoedit.methods.adapter_file import load_adapter, read_state
from imvideoedit.wan.backbone import load_backbone
from imvideoedit.wan.forward import denoise
from tests import processes
from tests.conftest import tiny_batch
from tests.pair_folder import write_pairs
from tests.test_resume import overrides
from tests.training_runs import Run

STEPS = 8
MORE = (
    "callbacks.checkpoint.every_n_steps=4",
    "callbacks.export.dtype=float32",
    f"trainer.max_steps={STEPS}",
    "data.epochs=20",
    "trainer.val_check_interval=2",
)


@pytest.fixture(scope="module")
def one(wan_folder, tmp_path_factory) -> Path:
    return trained(tmp_path_factory.mktemp("one"), wan_folder, 1)


@pytest.fixture(scope="module")
def two(wan_folder, tmp_path_factory) -> Callable[[str], Path]:
    """An uninterrupted run by two processes, made once for each trainer."""

    @functools.cache
    def run(trainer: str) -> Path:
        if trainer.startswith("zero2"):
            pytest.importorskip("deepspeed")
        return trained(tmp_path_factory.mktemp(trainer), wan_folder, 2, *sharing(trainer))

    return run


def sharing(trainer: str) -> tuple[str, ...]:
    """Settings of a trainer's name, behind which a plus says that gathered weights are kept."""
    kept = ["trainer.strategy.reshard_after_forward=false"] if trainer.endswith("+") else []
    return f"trainer={trainer.rstrip('+')}", "trainer.plugins=null", *kept


def trained(folder: Path, wan_folder: Path, processes: int, *more: str) -> Path:
    write_pairs(folder / "pairs", 26)
    run = Run(folder, [*overrides(wan_folder, *MORE, processes=processes), *more], processes)
    assert run.wait() == [0] * processes, run.said()
    return folder


def losses(folder: Path, name: str = "validation/loss") -> list[float]:
    with (folder / "runs/tiny/csv/metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["zero2", "zero2_offload", "fsdp2", "fsdp2+"])
def test_two_processes_learn_what_one_learns(one, two, wan_folder, trainer):
    sharded = two(trainer)
    assert len(losses(sharded)) == len(losses(one)) == STEPS // 2
    assert losses(sharded) == pytest.approx(losses(one), rel=1e-4)
    adapters = [folder / "runs/tiny/adapter.safetensors" for folder in (one, sharded)]
    one_way, other_way = (edits_of(adapter, wan_folder) for adapter in adapters)
    torch.testing.assert_close(one_way, other_way, rtol=1e-2, atol=2e-3)
    untrained = edits_of(adapters[0], wan_folder, trained=False)
    assert (one_way - untrained).abs().max() > 20 * (one_way - other_way).abs().max()


def edits_of(adapter: Path, wan_folder: Path, trained: bool = True) -> torch.Tensor:
    """Velocities with an adapter, as anybody would load it."""
    transformer = load_backbone(str(wan_folder)).transformer
    method, batch = load_adapter(adapter, transformer), tiny_batch()
    if not trained:
        method.uninstall()
    sigma = torch.tensor([0.3, 0.8])
    with torch.no_grad():
        if not trained:
            return denoise(transformer, batch.target_BCFHW, sigma, batch.text_BTD)
        return method.velocity(transformer, batch)(batch.target_BCFHW, sigma)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["zero2", "fsdp2"])
def test_a_sharded_run_resumes_exactly(two, wan_folder, tmp_path, trainer):
    full, more = two(trainer), sharing(trainer)
    parts = trained(tmp_path / "parts", wan_folder, 2, *more, "trainer.max_steps=4")
    run = Run(parts, [*overrides(wan_folder, *MORE, processes=2), *more], 2)
    assert run.wait() == [0, 0], run.said()
    states = [read_state(folder / "runs/tiny/adapter.safetensors") for folder in (full, parts)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert losses(parts) == losses(full)


@pytest.mark.parametrize("trainer", ["zero2", "fsdp2"])
def test_an_optimizer_of_whole_matrices_is_refused_before_training(tmp_path, trainer):
    if trainer == "zero2":
        pytest.importorskip("deepspeed")
    run = Run(tmp_path, ["+experiment=nano", f"trainer={trainer}", "trainer.accelerator=cpu", "trainer.devices=1"])
    assert run.wait() == [2]
    assert run.said().splitlines()[-1].startswith("error: Muon needs whole matrices, which zero2, zero2_offload and")
    assert "Traceback" not in run.said() and not list(tmp_path.rglob("encoded*"))


@pytest.mark.parametrize("offload", ["offload", "here"])
def test_many_small_gradients_add_up(tmp_path, offload):
    """15 gradients of 1/512 beside one of 1, of which bfloat16 keeps the one alone."""
    pytest.importorskip("deepspeed")
    done = processes.run("tests.zero2_gradients", offload, str(tmp_path / "meeting"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("moved")[-1]) == pytest.approx((1 + 15 / 512) / 16, rel=1e-6)


def test_weights_that_stay_gathered_are_those_of_the_average_while_it_is_in_place(tmp_path):
    done = processes.run("tests.sharded_weights", str(tmp_path / "meeting"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    changed, left = map(float, done.stdout.split("changed")[-1].split())
    assert changed > 0.01 and left == 0
