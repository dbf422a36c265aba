"""What is logged of a training run, and that no row is lost or repeated."""

import csv
from types import SimpleNamespace

import pytest
import torch

from imvideoedit.common.errors import UserError
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.training.loggers import KeptCSVLogger, wandb_logger
from imvideoedit.training.monitor import TrainingMonitor
from tests.conftest import tiny_batch, tiny_transformer


def rows(folder) -> list[tuple[int, str]]:
    with (folder / "csv" / "metrics.csv").open() as file:
        return [(int(row["step"]), row["a"]) for row in csv.DictReader(file)]


def logger(folder) -> KeptCSVLogger:
    return KeptCSVLogger(folder, name="csv", version="", flush_logs_every_n_steps=1)


def test_rows_survive_an_interruption_and_later_ones_come_once(tmp_path):
    first = logger(tmp_path)
    for step in range(5):
        first.log_metrics({"a": step}, step)
    resumed = logger(tmp_path)
    resumed.begin(3, {"epoch": 0, "a": 99.0})
    for step in range(3, 7):
        resumed.log_metrics({"a": 10 * step, "b": 1}, step)
    assert rows(tmp_path) == [(0, "0"), (1, "1"), (2, "2"), (3, "30"), (4, "40"), (5, "50"), (6, "60")]


def test_the_row_that_a_checkpoint_holds_is_added_where_the_file_lacks_it(tmp_path):
    first = logger(tmp_path)
    first.log_metrics({"a": 0, "epoch": 0}, 0)
    first.log_metrics({"validated": 7, "epoch": 0}, 1)
    resumed = logger(tmp_path)
    resumed.begin(2, {"epoch": 0, "a": 1})
    resumed.log_metrics({"a": 2, "epoch": 0}, 2)
    assert rows(tmp_path) == [(0, "0"), (1, ""), (1, "1"), (2, "2")]


def trained(losses: list[float], ids: list[str]):
    task = SimpleNamespace(step_losses=[(torch.tensor(losses), tuple(ids))])
    return task, SimpleNamespace(global_step=7, callbacks=[])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_the_pairs(bad):
    task, trainer = trained([0.5, bad], ["good", "bad one"])
    with pytest.raises(UserError, match="step 8 is not finite, with the pairs bad one; the last good checkpoint"):
        TrainingMonitor()._check_losses(trainer, task)


def test_a_loss_that_explodes_stops_and_one_that_falls_does_not():
    monitor = TrainingMonitor(explosion=10)
    for step in range(60):
        monitor._check_losses(trained([1.0], ["p"])[1], trained([1.0 - step / 100], ["p"])[0])
    task, trainer = trained([9.0], ["p9"])
    again = TrainingMonitor(explosion=10)
    again.load_state_dict(monitor.state_dict())
    with pytest.raises(UserError, match="10 times its mean.*p9"):
        again._check_losses(trainer, task)
    with pytest.raises(UserError, match="explosion"):
        TrainingMonitor(explosion=1)


def test_gates_are_read_as_they_are():
    transformer, monitor = tiny_transformer(), TrainingMonitor()
    method = PredictUpdate()
    method.install(transformer)
    for bias, share in ((20.0, "near_1"), (-20.0, "near_0")):
        for block in method.blocks:
            torch.nn.init.zeros_(block.gate.projection[2].weight)
            torch.nn.init.constant_(block.gate.projection[2].bias, bias)
        hooks = list(monitor._read_gates(SimpleNamespace(method=method)))
        method.losses(transformer, tiny_batch())
        for hook in hooks:
            hook.remove()
        assert len(monitor._gates) == 2 * 3
        assert all(float(monitor._gates[f"gate/{block:02d}/{share}"]) == 1 for block in range(2))
        assert float(monitor._gates["gate/00/mean"]) == pytest.approx(1 if bias > 0 else 0, abs=1e-6)


def test_weights_and_biases_keeps_a_run_offline_and_resumes_it(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    first = wandb_logger(tmp_path, "imvideoedit", "tiny")
    first.log_metrics({"loss": 1.0}, step=0)
    first.experiment.finish()
    assert list(tmp_path.glob("wandb/offline-run-*"))
    assert wandb_logger(tmp_path, "imvideoedit", "tiny")._id == first._id
