"""A resumed run takes or refuses each changed setting by name, applies it, and keeps to its rows."""

import json
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from imvideoedit.common.errors import UserError
from imvideoedit.training.data_identity import check_rows, row_hashes
from imvideoedit.training.restored import apply_options, options_of
from imvideoedit.training.run_folder import RunFolder

BEGUN = {
    "seed": 0,
    "resume": True,
    "data": {"path": "pairs", "num_workers": 0, "batch_size": 2, "epochs": 1},
    "task": {"optimizer": {"_target_": "AdamW", "lr": 3e-4}, "warmup": 1},
    "trainer": {"max_steps": 2},
}


@pytest.fixture
def folder(tmp_path):
    """A run with a checkpoint of step 2."""
    RunFolder(OmegaConf.create(BEGUN | {"run_dir": str(tmp_path)})).start()
    (tmp_path / "checkpoints/step-00000002.ckpt").parent.mkdir()
    (tmp_path / "checkpoints/step-00000002.ckpt").mkdir()
    (tmp_path / "checkpoints/step-00000002.json").write_text(
        '{"step": 2, "files": {}, "strategy": "single", "processes": 1}'
    )
    return tmp_path


def resumed(folder, **changes) -> RunFolder:
    config = OmegaConf.create(BEGUN | {"run_dir": str(folder)})
    for name, value in changes.items():
        OmegaConf.update(config, name.replace("__", "."), value)
    return RunFolder(config)


def test_what_may_change_is_taken_and_recorded(folder, capsys):
    changes = {"trainer__max_steps": 4, "data__num_workers": 3, "data__epochs": 9, "task__optimizer__lr": 1e-6}
    resumed(folder, **changes).start()
    said = capsys.readouterr().out
    assert said.startswith("resumes from step 2 with ")
    for words in ("trainer.max_steps 2 -> 4", "data.num_workers 0 -> 3", "task.optimizer.lr 0.0003 -> 1e-06"):
        assert words in said
    resumed(folder, **changes).start()
    assert capsys.readouterr().out == ""
    starts = [json.loads(line) for line in (folder / "starts.jsonl").read_text().splitlines()]
    assert [start["step"] for start in starts] == [0, 2, 2]
    assert starts[1]["changed"]["task.optimizer.lr"] == [3e-4, 1e-6] and not starts[2]["changed"]


@pytest.mark.parametrize(
    ("name", "value"), [("seed", 1), ("data__batch_size", 4), ("task__optimizer___target_", "Muon")]
)
def test_what_may_not_change_is_refused_by_name(folder, name, value):
    with pytest.raises(UserError, match=rf"cannot take: {name.replace('__', '.').replace('..', '._')} \S+ -> {value} "):
        resumed(folder, data__num_workers=2, **{name: value})


def test_a_restored_optimizer_gets_the_options_asked_for():
    def fresh(lr: float, decay: float) -> tuple:
        weight = torch.nn.Parameter(torch.ones(2))
        optimizer = AdamW([weight], lr=lr, weight_decay=decay)
        return weight, optimizer, LambdaLR(optimizer, lambda step: 0.5**step)

    weight, optimizer, scheduler = fresh(1e-2, 0.1)
    for _ in range(2):
        weight.grad = torch.ones(2)
        optimizer.step()
        scheduler.step()
    states = optimizer.state_dict(), scheduler.state_dict()
    for lr, decay in ((1e-2, 0.1), (1e-4, 0.3)):
        _, again, schedule = fresh(lr, decay)
        asked = options_of(again)
        again.load_state_dict(states[0])
        schedule.load_state_dict({**states[1]})
        configs = [SimpleNamespace(scheduler=schedule)]
        apply_options(SimpleNamespace(optimizers=[again], lr_scheduler_configs=configs), asked)
        (group,) = again.param_groups
        assert (group["lr"], group["weight_decay"]) == (lr * 0.25, decay)
        assert again.state_dict()["state"][0]["step"] == 2
        schedule.step()
        assert group["lr"] == pytest.approx(lr * 0.125, rel=1e-12)


def test_rows_are_compared_by_content():
    rows = [[f"p{number}", b"pixels"] for number in range(4)]
    before = {"train": row_hashes(rows[:3]), "validation": row_hashes(rows[3:])}
    check_rows("pairs", before, {"train": row_hashes(rows[:3]), "validation": row_hashes(rows[3:])})
    for now, words in (
        ([*rows[:3], ["p9"]], "4 then, 5 now: 1 added or changed, 0 removed"),
        (rows[:2], "4 then, 3 now: 0 added or changed, 1 removed"),
        ([*rows[:2], ["p2", b"other"]], "4 then, 4 now: 1 added or changed, 1 removed"),
        (rows[2::-1], "4 now: in another order"),
    ):
        with pytest.raises(UserError, match=words):
            check_rows("pairs", before, {"train": row_hashes(now), "validation": row_hashes(rows[3:])})
