"""The training task: it learns, leaves the backbone alone, averages, and resumes exactly."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback, LightningDataModule, Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.utils.data import DataLoader

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import EditBatch
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.methods.adapter_file import adapter_hash, read_header, read_state
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.nano.batches import StepSampler
from imvideoedit.nano.readouts import ContentReadouts
from imvideoedit.training.batches import drop_texts
from imvideoedit.training.checkpoints import AtomicCheckpointIO
from imvideoedit.training.export import ExportAdapter
from imvideoedit.training.strategies import Zero2
from imvideoedit.training.task import EditTask
from imvideoedit.wan.backbone import Backbone, load_backbone, parameter_hash
from tests.conftest import tiny_batch, tiny_transformer


class Batches(LightningDataModule):
    """Batch i is the tiny batch of seed i modulo ``different``; the position is that of nano pairs."""

    def __init__(self, different: int = 1000) -> None:
        super().__init__()
        self.different = different

    def __getitem__(self, index: int) -> EditBatch:
        batch = tiny_batch(batch=4, frames=1, seed=index % self.different)
        labels = torch.randint(0, 5, (4, 1, 2, 3, 4), generator=torch.Generator().manual_seed(index))
        return replace(batch, labels={"content": labels})

    def train_dataloader(self) -> DataLoader:
        repeats = self.trainer.accumulate_grad_batches
        sampler = StepSampler(self.trainer.max_steps * repeats, self.trainer.global_step * repeats)
        return DataLoader(self, batch_size=None, sampler=sampler)

    def val_dataloader(self) -> DataLoader:
        return DataLoader([self[0], self[1 % self.different]], batch_size=None)


class Interrupted(Exception):
    pass


class SaveThenStop(Callback):
    """Saves after step 3 and stops after step 4, so that one step is lost."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: Trainer, *_) -> None:
        if trainer.global_step == 3 and not self.path.exists():  # not again amid an accumulation
            trainer.save_checkpoint(self.path)
        if trainer.global_step == 4:
            raise Interrupted


def tiny_backbone() -> Backbone:
    return Backbone("tiny", None, tiny_transformer(), None, None, None, 3.0)


def tiny_task(backbone: Backbone | None = None, **options) -> EditTask:
    optimizer = partial(torch.optim.AdamW, lr=options.pop("lr", 3e-3))
    return EditTask(backbone or tiny_backbone(), PredictUpdate(), optimizer, **{"warmup": 2, **options})


def trainer(folder: Path, steps: int, **options) -> Trainer:
    return Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=None,
        default_root_dir=folder,
        plugins=[AtomicCheckpointIO()],
        gradient_clip_val=1.0,
        **{"val_check_interval": steps, "log_every_n_steps": 1, **options},
    )


def state(task: EditTask) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in task.method.state_dict().items()} | {
        f"ema.{i}": average.clone() for i, average in enumerate(task.average.values)
    }


def validation_loss(task: EditTask, folder: Path) -> float:
    return trainer(folder, 1).validate(task, Batches(different=1), verbose=False)[0]["validation/loss"]


def test_loss_falls_and_the_backbone_stays(tmp_path):
    task = tiny_task(ema_decay=0.9, lr=1e-2)
    before, loss = task.backbone.parameter_hash(), validation_loss(task, tmp_path)
    assert validation_loss(task, tmp_path) == loss
    trainer(tmp_path, 60).fit(task, Batches(different=1))
    assert validation_loss(task, tmp_path) < 0.95 * loss
    assert task.backbone.parameter_hash() == before == parameter_hash(tiny_transformer())


def test_a_checkpoint_holds_no_backbone(tmp_path):
    task = tiny_task()
    run = trainer(tmp_path, 1)
    run.fit(task, Batches())
    run.save_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert set(checkpoint["state_dict"]) == {f"method.{name}" for name in task.method.state_dict()}
    assert len(checkpoint["ema"]) == len(task.trained())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt"]


@pytest.mark.parametrize(("repeats", "auxiliary"), [(1, None), (2, None), (1, ContentReadouts)])
def test_interrupted_and_resumed_is_uninterrupted(tmp_path, repeats, auxiliary):
    options = {"schedule": "cosine", "ema_decay": 0.9, "auxiliary": auxiliary}
    full = tiny_task(**options)
    trainer(tmp_path, 6, accumulate_grad_batches=repeats, val_check_interval=2).fit(full, Batches())

    broken = tiny_task(**options)
    run = trainer(tmp_path, 6, accumulate_grad_batches=repeats, val_check_interval=2)
    run.callbacks.append(SaveThenStop(tmp_path / "last.ckpt"))
    with pytest.raises(Interrupted):
        run.fit(broken, Batches())

    resumed = tiny_task(**options)
    run = trainer(tmp_path, 6, accumulate_grad_batches=repeats, val_check_interval=2)
    run.fit(resumed, Batches(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert run.global_step == 6
    expected, found = state(full), state(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_an_auxiliary_module_teaches_the_method_and_is_thrown_away(tmp_path):
    plain, taught = tiny_task(), tiny_task(auxiliary=ContentReadouts)
    start = [p.clone() for p in taught.auxiliary.parameters()]
    for task in (plain, taught):
        trainer(tmp_path, 2).fit(task, Batches())
    assert taught.method.state_dict().keys() == plain.method.state_dict().keys()
    assert any(not torch.equal(a, b) for a, b in zip(plain.average.values, taught.average.values, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(start, taught.auxiliary.parameters(), strict=True))
    assert taught.backbone.parameter_hash() == plain.backbone.parameter_hash()
    without = replace(Batches()[0], labels={})
    assert taught.losses_of(without, *taught.method.training_point(without))[1] == {}


def test_the_average_follows_its_formula(tmp_path):
    task = tiny_task(ema_decay=0.5, warmup=0, lr=1e-2)
    average = [p.detach().clone() for p in task.trained()]
    weights = []
    original = task._update_average
    task._update_average = lambda done: (weights.append([p.detach().clone() for p in task.trained()]), original(done))
    trainer(tmp_path, 3).fit(task, Batches())
    assert len(weights) == 3
    for step, row in enumerate(weights, start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        average = [decay * old + (1 - decay) * new for old, new in zip(average, row, strict=True)]
    for expected, found in zip(average, task.average.values, strict=True):
        torch.testing.assert_close(found, expected)


def test_an_average_of_all_weights_is_not_made_where_each_process_has_a_part_of_it():
    task = tiny_task()
    task.trainer = SimpleNamespace(strategy=object.__new__(Zero2))
    task.configure_model()
    assert not hasattr(task, "average")
    task.trainer = SimpleNamespace(strategy=SingleDeviceStrategy("cpu"))
    task.configure_model()
    assert [value.shape for value in task.average.values] == [weight.shape for weight in task.trained()]


def test_averaged_weights_are_there_within_the_block_only(tmp_path):
    task = tiny_task()
    trainer(tmp_path, 2).fit(task, Batches())
    before = state(task)
    with task.averaged():
        assert all(torch.equal(p, before[f"ema.{i}"]) for i, p in enumerate(task.trained()))
    after = state(task)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_export_writes_the_average_with_its_header(tmp_path):
    task = tiny_task(seed=9)
    run = trainer(tmp_path, 3)
    run.callbacks.append(ExportAdapter(tmp_path / "adapter.safetensors", SamplingConfig(max_area=4096, steps=7)))
    run.fit(task, Batches())
    with task.averaged():
        assert adapter_hash(tmp_path / "adapter.safetensors") == adapter_hash(task.method.state_dict())
    header = read_header(tmp_path / "adapter.safetensors")
    assert header.training["steps"] == 3 and header.training["seed"] == 9
    assert SamplingConfig(**header.training["sampler"]) == SamplingConfig(max_area=4096, steps=7)
    assert header.backbone["parameter_hash"] == task.backbone.parameter_hash()


def test_an_export_may_lie_between_the_start_and_what_became_of_it(tmp_path):
    def trained(start, share, name):
        task, run = tiny_task(start=start), trainer(tmp_path, 3)
        run.callbacks.append(ExportAdapter(tmp_path / name, SamplingConfig(), start_share=share))
        run.fit(task, Batches())
        return read_state(tmp_path / name)

    start = trained(None, 0.0, "start.safetensors")
    whole, part = (trained(tmp_path / "start.safetensors", share, f"{share}.safetensors") for share in (0.0, 0.25))
    assert any(not torch.equal(whole[name], start[name]) for name in start)
    for name, value in part.items():
        assert torch.allclose(value, 0.75 * whole[name] + 0.25 * start[name], atol=1e-6)
    told = read_header(tmp_path / "0.25.safetensors").training["start"]
    assert told == {"adapter": adapter_hash(start), "share": 0.25}
    ended = trainer(tmp_path, 3)
    ended.fit(tiny_task(start=tmp_path / "start.safetensors"), Batches())
    ended.save_checkpoint(tmp_path / "ended.ckpt")
    again, task = trainer(tmp_path, 3), tiny_task(start=tmp_path / "start.safetensors")
    again.callbacks.append(ExportAdapter(tmp_path / "again.safetensors", SamplingConfig(), start_share=0.25))
    again.fit(task, Batches(), ckpt_path=tmp_path / "ended.ckpt")
    assert adapter_hash(tmp_path / "again.safetensors") == adapter_hash(part), "a run at its end exports as it is told"
    with pytest.raises(UserError, match="needs a start"):
        trained(None, 0.25, "none.safetensors")
    with pytest.raises(UserError, match=r"in \[0, 1\]"):
        ExportAdapter(tmp_path / "x", SamplingConfig(), start_share=1.5)


def test_the_bundled_adapter_is_a_start_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    method = AlignedUpdate()
    task = EditTask(load_backbone("nano", device="cpu", parts=()), method, torch.optim.AdamW, start="bundled")
    assert adapter_hash(task.start) == adapter_hash({k: v.half() for k, v in method.state_dict().items()})


def test_learning_rate_warms_up_and_ends(tmp_path):
    constant = tiny_task(warmup=4)
    assert [constant._rate(step) for step in (0, 1, 3, 4, 100)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    task, rates = tiny_task(warmup=4, schedule="cosine", lr=1.0), []
    task.on_before_optimizer_step = lambda optimizer: rates.append(optimizer.param_groups[0]["lr"])
    trainer(tmp_path, 12).fit(task, Batches())
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[8] == pytest.approx(0.5) and rates[11] == pytest.approx(0.5 * (1 + math.cos(math.pi * 7 / 8)))


def test_bins_hold_the_mean_loss_of_their_noise_levels():
    task = tiny_task()
    logged = {}
    task.log = lambda name, value, **_: logged.update({name: float(value)})
    task._add_to_bins(torch.tensor([0.0, 0.19, 0.5, 1.0]), torch.tensor([1.0, 3.0, 5.0, 7.0]))
    task._add_to_bins(torch.tensor([0.1]), torch.tensor([5.0]))
    task._log_bins()
    assert logged == {"loss_by_sigma/0.0-0.2": 3.0, "loss_by_sigma/0.4-0.6": 5.0, "loss_by_sigma/0.8-1.0": 7.0}


def test_texts_are_dropped_with_their_probability():
    edits = tiny_batch()
    known = replace(edits, empty_TD=edits.text_BTD[1] + 1)
    dropped = drop_texts(known, 0.5, torch.Generator().manual_seed(1)).text_BTD
    kept = torch.rand(2, generator=torch.Generator().manual_seed(1)) >= 0.5
    for row in range(2):
        assert dropped[row].equal(edits.text_BTD[row] if kept[row] else known.empty_TD)
    assert drop_texts(edits, 1.0, torch.Generator()) is edits


@pytest.mark.parametrize("wrong", [{"schedule": "linear"}, {"warmup": -1}, {"ema_decay": 1.0}, {"text_dropout": 2.0}])
def test_arguments_out_of_range_are_named(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        tiny_task(**wrong)
