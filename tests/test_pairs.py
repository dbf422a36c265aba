import json
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.data.pairs import PairDataModule, PairDataset
from imvideoedit.data.records import open_records

SIZES = [(32, 32), (32, 32), (24, 48), (48, 24)]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Eleven pairs; the red value of both images is the row's number, the target's green one is 255."""
    lines = []
    for row in range(11):
        pixels = np.zeros((*SIZES[row % 4], 3), np.uint8)
        pixels[..., 0] = row
        Image.fromarray(pixels).save(tmp_path / f"{row}s.png")
        pixels[..., 1] = 255
        Image.fromarray(pixels).save(tmp_path / f"{row}t.png")
        texts = {"instruction": f"edit {row}", "source_prompt": "before", "edited_prompt": "after"}
        images = {"source": f"{row}s.png", "target": f"{row}t.png"}
        lines.append(json.dumps({"id": f"p{row}", "task": "relighting", **texts, **images}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    return tmp_path


def module(folder: Path, **changes) -> PairDataModule:
    data = PairDataModule(folder, **{"max_area": 32 * 32, "pixel_multiple": 8, "batch_size": 2, "seed": 3, **changes})
    data.setup()
    return data


def ids(batches) -> list[str]:
    return [name for batch in batches for name in batch["id"]]


def test_an_item_is_a_one_frame_video_in_range(folder):
    pairs = PairDataset(open_records(folder), 32 * 32, 8)
    item = pairs[5]
    assert item["source"].shape == item["target"].shape == (3, 1, 32, 32)
    assert item["source"].dtype == torch.float32
    red, green, blue = item["target"][:, 0, 0, 0].tolist()
    assert (red, green, blue) == (pytest.approx(5 / 127.5 - 1), 1.0, -1.0)
    assert item["source"][1].eq(-1).all()
    texts = {"instruction": "edit 5", "source_prompt": "before", "edited_prompt": "after"}
    assert {**texts, "task": "relighting", "id": "p5"} == {k: v for k, v in item.items() if isinstance(v, str)}
    assert pairs[2]["source"].shape == (3, 1, *pairs.buckets[2]) and pairs.buckets[2][0] < pairs.buckets[2][1]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_stack_tensors_and_list_texts(folder, num_workers):
    loader = module(folder, num_workers=num_workers).train_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader) and sorted(ids(batches)) == sorted(f"p{row}" for row in range(11))
    for batch in batches:
        assert batch["source"].shape == batch["target"].shape == (len(batch["id"]), 3, 1, *batch["source"].shape[-2:])
        rows = ((batch["source"][:, 0, 0, 0, 0] + 1) * 127.5).round().int().tolist()
        assert [f"p{row}" for row in rows] == batch["id"]
        assert [f"edit {row}" for row in rows] == batch["instruction"]


def test_a_pair_of_two_sizes_is_refused_by_name(folder):
    Image.new("RGB", (30, 32)).save(folder / "6t.png")
    with pytest.raises(UserError, match=r"row 6 \(p6\).*48x24.*30x32"):
        module(folder)


def test_the_validation_share_is_disjoint_stable_and_exact(folder):
    data, again, other = (
        module(folder, val_share=0.3),
        module(folder, val_share=0.3),
        module(folder, seed=4, val_share=0.3),
    )
    train, held_out = ids(data.train_dataloader()), ids(data.val_dataloader())
    assert len(held_out) == 3 and sorted(train + held_out) == sorted(f"p{row}" for row in range(11))
    assert held_out == ids(again.val_dataloader()) == ids(data.val_dataloader())
    assert set(held_out) != set(ids(other.val_dataloader()))
    assert module(folder).val_dataloader() == []
    assert len(module(folder, val_share=0.01).val_pairs) == 1
    with pytest.raises(UserError, match="val_share=1"):
        module(folder, val_share=1)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_resumes_after_the_last_batch_it_gave(folder, num_workers):
    whole = ids(module(folder).train_dataloader())
    loader = module(folder, num_workers=num_workers).train_dataloader()
    iterator = iter(loader)
    begun = ids([next(iterator), next(iterator)])
    state = json.loads(json.dumps(loader.state_dict()))
    resumed = module(folder, num_workers=num_workers).train_dataloader()
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state == {"epoch": 0, "position": 2}
    assert begun + ids(resumed) == whole == ids(resumed)


class Recorder(lightning.LightningModule):
    """Notes which pairs it sees in which epoch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, _):
        self.seen += [(self.current_epoch, name) for name in batch["id"]]
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(folder: Path, run: Path, resume: Path | None = None, **limits) -> list:
    model = Recorder()
    saver = lightning.pytorch.callbacks.ModelCheckpoint(run, save_last=True, every_n_train_steps=1)
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[saver],
        enable_progress_bar=False,
        enable_model_summary=False,
        **limits,
    )
    trainer.fit(model, module(folder), ckpt_path=resume, weights_only=True)
    return model.seen


@pytest.mark.parametrize("steps", [2, 6, 7])
def test_lightning_resumes_within_an_epoch(folder, tmp_path, steps):
    """Six batches make an epoch: stopped in the first, at its end, and in the second."""
    whole = train(folder, tmp_path / "whole", max_epochs=2)
    assert len(whole) == 22 and [name for _, name in whole[:11]] != [name for _, name in whole[11:]]
    begun = train(folder, tmp_path / "begun", max_steps=steps)
    rest = train(folder, tmp_path / "rest", tmp_path / "begun/last.ckpt", max_epochs=2)
    assert begun + rest == whole
