"""The data module of image pairs: split, batches, and resuming within an epoch."""

import json
from pathlib import Path
from types import SimpleNamespace

import lightning
import pytest
import torch
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.training.data_module import LatentDataModule
from imvideoedit.wan.backbone import Backbone, load_backbone
from tests.pair_folder import write_pairs


@pytest.fixture(scope="module")
def backbone(wan_folder) -> Backbone:
    return load_backbone(str(wan_folder), device="cpu")


@pytest.fixture
def folder(tmp_path) -> Path:
    write_pairs(tmp_path / "pairs", 11)
    return tmp_path


def module(folder: Path, **changes) -> LatentDataModule:
    sizes = {"max_area": 32 * 32, "pixel_multiple": 16}
    return LatentDataModule(folder / "pairs", folder / "cache", **{**sizes, "batch_size": 2, "seed": 3, **changes})


def opened(folder: Path, backbone: Backbone, **changes) -> LatentDataModule:
    """Set up as by the trainer of one process."""
    data = module(folder, **changes)
    strategy = SimpleNamespace(barrier=lambda: None, root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(
        global_rank=0,
        world_size=1,
        accumulate_grad_batches=1,
        strategy=strategy,
        lightning_module=SimpleNamespace(backbone=backbone),
    )
    data.setup()
    return data


def ids(batches) -> list[str]:
    return [name for batch in batches for name in batch.ids]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_hold_every_pair_once_and_one_size_each(folder, backbone, num_workers):
    loader = opened(folder, backbone, num_workers=num_workers).train_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader) and sorted(ids(batches)) == sorted(f"p{row}" for row in range(11))
    for batch in batches:
        assert (
            batch.source_BCFHW.shape
            == batch.target_BCFHW.shape
            == (len(batch.ids), 4, 1, *batch.source_BCFHW.shape[-2:])
        )


def test_a_pair_of_two_sizes_is_refused_by_name(folder, backbone):
    Image.new("RGB", (30, 32)).save(folder / "pairs/6t.png")
    with pytest.raises(UserError, match=r"row 6 \(p6\).*32x32.*30x32"):
        opened(folder, backbone)


def test_the_validation_share_is_disjoint_stable_and_exact(folder, backbone):
    data, again, other = (opened(folder, backbone, seed=seed, val_share=0.3) for seed in (3, 3, 4))
    train, held_out = ids(data.train_dataloader()), ids(data.val_dataloader())
    assert len(held_out) == 3 and sorted(train + held_out) == sorted(f"p{row}" for row in range(11))
    assert held_out == ids(again.val_dataloader()) == ids(data.val_dataloader())
    assert set(held_out) != set(ids(other.val_dataloader()))
    assert opened(folder, backbone).val_dataloader() == []
    assert len(opened(folder, backbone, val_share=0.01).val_pairs) == 1


@pytest.mark.parametrize("wrong", [{"val_share": 1.0}, {"epochs": 0}, {"batch_size": 0}])
def test_arguments_out_of_range_are_named(tmp_path, wrong):
    with pytest.raises(UserError, match=f"data.{next(iter(wrong))} is"):
        module(tmp_path, **wrong)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_resumes_after_the_last_batch_it_gave(folder, backbone, num_workers):
    full = ids(opened(folder, backbone).train_dataloader())
    loader = opened(folder, backbone, num_workers=num_workers).train_dataloader()
    iterator = iter(loader)
    begun = ids([next(iterator), next(iterator)])
    state = json.loads(json.dumps(loader.state_dict()))
    resumed = opened(folder, backbone, num_workers=num_workers).train_dataloader()
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state == {"epoch": 0, "position": 2}
    assert begun + ids(resumed) == full == ids(resumed)


class Recorder(lightning.LightningModule):
    """Records which pairs come in which epoch."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.pairs = []

    def training_step(self, batch, _):
        self.pairs += [(self.current_epoch, name) for name in batch.ids]
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], lr=0.1)


def train(folder: Path, backbone: Backbone, run: Path, resume: Path | None = None, **limits) -> list:
    model = Recorder(backbone)
    saver = lightning.pytorch.callbacks.ModelCheckpoint(run, save_last=True, every_n_train_steps=1)
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[saver],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **limits,
    )
    trainer.fit(model, module(folder), ckpt_path=resume, weights_only=True)
    return model.pairs


@pytest.mark.parametrize("steps", [2, 6, 7])
def test_lightning_resumes_within_an_epoch(folder, backbone, tmp_path, steps):
    """Six batches make an epoch: stopped in the first, at its end, and in the second."""
    full = train(folder, backbone, tmp_path / "full", max_epochs=2)
    assert len(full) == 22 and [name for _, name in full[:11]] != [name for _, name in full[11:]]
    begun = train(folder, backbone, tmp_path / "begun", max_steps=steps)
    rest = train(folder, backbone, tmp_path / "rest", tmp_path / "begun/last.ckpt", max_epochs=2)
    assert begun + rest == full
