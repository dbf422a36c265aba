"""What a method declares reaches it: from files to ``EditBatch.conditions``, exactly, also where examples change."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import EditBatch, Input
from imvideoedit.methods.parallel_2d import Parallel2D
from imvideoedit.training.data_module import LatentDataModule
from imvideoedit.training.live_encoding import PixelPairs
from imvideoedit.video.geometry import to_model
from imvideoedit.wan.backbone import Backbone, load_backbone
from tests.clips import flat_frames, make_clip

SIZE = (32, 32)
ALL = (
    Input("first_frame", "image", from_target=True),
    Input("mask", "mask"),
    Input("reference", "image", "raw", required=False),
    Input("motion", "video", "raw", required=False),
    Input("style", "text", required=False),
)


@pytest.fixture(scope="module")
def backbone(wan_folder) -> Backbone:
    return load_backbone(str(wan_folder), device="cpu")


def random_clip(seed: int, frames: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, *SIZE, 3), np.uint8)


def save_frames(folder: Path, video: np.ndarray) -> str:
    """A clip as a folder of frames, so that nothing is lost."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(video):
        Image.fromarray(frame).save(folder / f"{number}.png")
    return folder.name


def write(folder: Path, rows: list[dict[str, Any]], frames: int = 5) -> Path:
    """Clips ``<row>s`` and ``<row>t`` of random frames, or images, with more fields."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for row, more in enumerate(rows):
        names = {}
        for place, side in enumerate(("source", "target")):
            video = random_clip(2 * row + place, frames)
            if frames == 1:
                Image.fromarray(video[0]).save(folder / f"{row}{side}.png")
            names[side] = f"{row}{side}.png" if frames == 1 else save_frames(folder / f"{row}{side}", video)
        lines.append(json.dumps({"prompt": f"a red ball {'rolls ' * row}", **names, **more}))
    (folder / "pairs.jsonl").write_text("\n".join(lines))
    return folder / "pairs.jsonl"


def opened(path: Path, backbone: Backbone, method: Any, **changes: Any) -> LatentDataModule:
    """Set up as by the trainer of one process."""
    how = {"max_area": 1024, "pixel_multiple": 16, "batch_size": 2, "seed": 3, "frames": [1, 5]}
    data = LatentDataModule(path, path.parent / "cache", **{**how, **changes})
    strategy = SimpleNamespace(barrier=lambda: None, root_device=torch.device("cpu"))
    module = SimpleNamespace(backbone=backbone, method=method)
    data.trainer = SimpleNamespace(
        global_rank=0, world_size=1, accumulate_grad_batches=1, strategy=strategy, lightning_module=module
    )
    data.setup()
    return data


def batches(data: LatentDataModule, validation: bool = False) -> list[EditBatch]:
    loader = data.val_dataloader() if validation else data.train_dataloader()
    return [data.on_after_batch_transfer(batch, 0) for batch in loader]


def taking(*inputs: Input) -> Any:
    return SimpleNamespace(inputs=inputs, data_inputs=inputs, derived=(), changes_examples=False)


def encoded(backbone: Backbone, video: np.ndarray) -> torch.Tensor:
    return backbone.encode_video(to_model(list(video)))[0].half().float()


def test_a_batch_moves_all_that_it_carries_nested_too():
    here = torch.ones(1)
    conditions: dict[str, Any] = {"mask": here, "features": {"first": here, "others": (here, [here])}, "scale": 2}
    batch = EditBatch(here, None, here, conditions, {"content": here}, here, ("a",)).to("meta")
    moved = [batch.source_BCFHW, batch.text_BTD, batch.empty_TD, batch.labels["content"], batch.conditions["mask"]]
    features = batch.conditions["features"]
    assert all(each.is_meta for each in (*moved, features["first"], features["others"][0], features["others"][1][0]))
    assert (batch.target_BCFHW, batch.conditions["scale"], batch.ids) == (None, 2, ("a",))
    assert not here.is_meta and not conditions["features"]["first"].is_meta


def test_every_input_arrives_as_its_encoder_makes_it(tmp_path, backbone):
    (tmp_path / "data").mkdir()
    mask = np.zeros((5, *SIZE), np.uint8)
    for frame in range(5):
        mask[frame, 4 : 9 + frame, 10:20] = 1  # of the range 0..1, and moving
    (tmp_path / "data/mask").mkdir()
    for frame, values in enumerate(mask):
        Image.fromarray(values).save(tmp_path / f"data/mask/{frame}.png")
    first, reference = random_clip(90, 1)[0], random_clip(91, 1)[0]
    Image.fromarray(first).save(tmp_path / "data/first.png")
    Image.fromarray(reference).save(tmp_path / "data/ref.png")
    motion = random_clip(92, 7)
    save_frames(tmp_path / "data/motion", motion)
    given = {"mask": "mask", "first_frame": "first.png", "reference": "ref.png", "motion": "motion", "style": "sand"}
    path = write(tmp_path / "data", [given])
    (batch,) = batches(opened(path, backbone, taking(*ALL)))
    source, target = random_clip(0, 5), random_clip(1, 5)
    torch.testing.assert_close(batch.source_BCFHW[0], encoded(backbone, source))
    torch.testing.assert_close(batch.target_BCFHW[0], encoded(backbone, target))
    found = batch.conditions
    assert set(found) == {each.name for each in ALL}
    torch.testing.assert_close(found["first_frame"][0], encoded(backbone, first[None]))
    assert found["first_frame"].shape[2] == 1 and batch.source_BCFHW.shape[2] == 2
    assert torch.equal(found["mask"], torch.from_numpy(mask).float()[None, None])
    assert torch.equal(found["reference"], to_model([reference]))
    assert torch.equal(found["motion"], to_model(list(motion[:5])))
    text_BTD = backbone.encode_text(["sand"])
    torch.testing.assert_close(found["style"].float(), text_BTD, rtol=2e-3, atol=2e-3)
    assert batch.to("cpu").conditions["mask"].equal(found["mask"])


def test_a_first_frame_that_the_data_lack_is_the_targets(tmp_path, backbone):
    path = write(tmp_path / "data", [{}])
    (batch,) = batches(opened(path, backbone, taking(ALL[0])))
    torch.testing.assert_close(batch.conditions["first_frame"][0], encoded(backbone, random_clip(1, 5)[:1]))
    image = write(tmp_path / "images", [{}], frames=1)
    (batch,) = batches(opened(image, backbone, taking(ALL[0])))
    assert batch.conditions["first_frame"].equal(batch.target_BCFHW)


@pytest.mark.parametrize("kind", ["bool", "0..1", "0..255", "16 bit", "video"])
def test_masks_of_any_range_are_the_same(tmp_path, backbone, kind):
    wanted = np.zeros((48, 64), bool)
    wanted[16:32, 16:48] = True
    path = write(tmp_path / "data", [{"mask": "m.mp4" if kind == "video" else "m.png"}])
    file = tmp_path / "data" / ("m.mp4" if kind == "video" else "m.png")
    if kind == "video":
        frames = flat_frames([0] * 5, 48, 64)
        frames[:, wanted] = 255
        make_clip(file, frames)
    else:
        values = {"bool": wanted, "0..1": wanted.astype(np.uint8), "16 bit": wanted.astype(np.uint16) * 65535}
        Image.fromarray(values.get(kind, wanted.astype(np.uint8) * 255)).save(file)
    for side in ("source", "target"):
        for frame in (tmp_path / f"data/0{side}").iterdir():
            Image.open(frame).resize((64, 48)).save(frame)
    sizes = {"max_area": 64 * 48}
    (batch,) = batches(opened(path, backbone, taking(ALL[1]), **sizes))
    assert torch.equal(batch.conditions["mask"], torch.from_numpy(wanted).float().expand(1, 1, 5, -1, -1))


def test_a_mask_is_cut_as_its_source_and_refused_in_another_shape(tmp_path, backbone):
    path = write(tmp_path / "data", [{"mask": "m.png"}], frames=1)
    wide = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    for side in ("source", "target"):
        Image.fromarray(wide).save(tmp_path / f"data/0{side}.png")
    mask = np.zeros((16, 32), np.uint8)  # half the source's size
    mask[:, 12:] = 255
    Image.fromarray(mask).save(tmp_path / "data/m.png")
    square = {"max_area": 256}  # the only bucket is a square
    (batch,) = batches(opened(path, backbone, taking(ALL[1]), **square))
    (found,) = batch.conditions["mask"][0, 0]
    assert found.shape == (16, 16) and (found[:, :4] == 0).all() and (found[:, 4:] == 1).all()
    Image.fromarray(mask[:, :20]).save(tmp_path / "data/m.png")
    with pytest.raises(UserError, match=r"row 0 .*mask is 20x16 but source is 64x32; give one of that shape"):
        opened(path, backbone, taking(ALL[1]), **square)


def test_what_a_method_needs_and_does_not_get_is_named(tmp_path, backbone, capsys):
    path = write(tmp_path / "data", [{"mask": "m.png", "extra": "m.png"}, {}], frames=1)
    Image.fromarray(np.full(SIZE, 255, np.uint8)).save(tmp_path / "data/m.png")
    with pytest.raises(UserError, match=r"row 1 .*has no mask \(mask\).*data\.columns=\{mask: COLUMN\}"):
        opened(path, backbone, taking(ALL[1]))
    assert capsys.readouterr().out.count("not used: extra\n") == 1
    opened(path, backbone, taking())
    assert "the method does not take, not used: extra, mask\n" in capsys.readouterr().out
    with pytest.raises(UserError, match="row 0 .*its mask is not a text, as the method needs"):
        opened(path, backbone, taking(Input("mask", "text")))
    for place, wrong in enumerate(("gone", "/etc/m.png", ["a.png", "b.png"])):
        other = write(tmp_path / f"other{place}", [{"reference": wrong}], frames=1)
        with pytest.raises(UserError, match="row 0 .*its reference is not an image or clip in the data's folder"):
            opened(other, backbone, taking(ALL[2]))


def test_rows_with_and_without_an_optional_input_share_no_batch(tmp_path, backbone):
    rows = [{"reference": "r.png"} if row % 2 else {} for row in range(6)]
    path = write(tmp_path / "data", rows, frames=1)
    Image.fromarray(random_clip(5, 1)[0]).save(tmp_path / "data/r.png")
    found = batches(opened(path, backbone, taking(ALL[2])))
    assert sorted(len(batch.ids) for batch in found) == [1, 1, 2, 2]
    for batch in found:
        odd = {int(name[0]) % 2 for name in batch.ids}
        assert len(odd) == 1 and ("reference" in batch.conditions) == odd.pop()


def test_clips_take_the_longest_length_that_they_fill(tmp_path, backbone):
    path = write(tmp_path / "data", [{}], frames=9)
    for frames, latent in (([1, 5], 2), ([5, 9], 3), ([9, 13], 3)):
        (batch,) = batches(opened(path, backbone, None, frames=frames))
        assert batch.source_BCFHW.shape[2] == batch.target_BCFHW.shape[2] == latent
    with pytest.raises(UserError, match="row 0 .*has 9 frames, fewer than the shortest length of a clip, 13"):
        opened(path, backbone, None, frames=[1, 13])
    with pytest.raises(UserError, match=r"row 0 .*is a clip of 9 frames, but data\.frames=\[1\] has no length above 1"):
        opened(path, backbone, None, frames=[1])
    images = write(tmp_path / "images", [{}], frames=1)
    with pytest.raises(UserError, match=r"row 0 .*is an image, but data\.frames=\[5\] has no 1"):
        opened(images, backbone, None, frames=5)
    with pytest.raises(UserError, match="give lengths 4k"):
        opened(images, backbone, None, frames=[1, 6])


class Shifting(Parallel2D):
    """Rolls all media by a random number of columns, which it adds to the text, and adds a medium ``clue``."""

    inputs = (Input("mask", "mask"), Input("first_frame", "image", "raw", from_target=True))

    def transform(self, example, rng):
        by = int(rng.integers(1, 32))
        moved = {name: np.roll(value, by, 2) for name, value in example.items() if isinstance(value, np.ndarray)}
        return {**example, **moved, "clue": example["source"][:1] // 2, "prompt": f"{example['prompt']} {by}"}


def shift(seed: int, row: int, epoch: int) -> int:
    return int(np.random.default_rng((seed, row, epoch)).integers(1, 32))


def shifting_data(folder: Path, rows: int = 3) -> Path:
    path = write(folder, [{"mask": "m.png"}] * rows, frames=1)
    mask = np.zeros(SIZE, np.uint8)
    mask[:, :7] = 255
    Image.fromarray(mask).save(folder / "m.png")
    return path


@pytest.mark.parametrize(("variants", "num_workers"), [(0, 0), (0, 1), (2, 0)])
def test_a_transform_is_a_function_of_seed_row_and_epoch(tmp_path, backbone, variants, num_workers):
    path = shifting_data(tmp_path / "data")
    how = {"variants": variants, "num_workers": num_workers, "batch_size": 1, "epochs": 3, "val_share": 0.3}
    data = opened(path, backbone, Shifting(), **how)
    assert isinstance(data.train_pairs, PixelPairs) == (variants == 0)
    found = batches(data)
    (held,) = batches(data, validation=True)
    assert len(found) == 6 and len({held.ids[0], *(batch.ids[0] for batch in found)}) == 3
    for place, batch in enumerate([*found, held]):
        row, epoch = int(batch.ids[0][0]), 0 if batch is held else place // 2
        by = shift(3, row, epoch % variants if variants else epoch)
        source, target = random_clip(2 * row, 1), random_clip(2 * row + 1, 1)
        close = {"rtol": 2e-3, "atol": 2e-3}  # a rounding to half precision, as batches differ
        torch.testing.assert_close(batch.source_BCFHW[0], encoded(backbone, np.roll(source, by, 2)), **close)
        torch.testing.assert_close(batch.target_BCFHW[0], encoded(backbone, np.roll(target, by, 2)), **close)
        torch.testing.assert_close(batch.conditions["clue"][0], encoded(backbone, source // 2), **close)
        mask = np.roll(np.arange(32) < 7, by)
        assert torch.equal(batch.conditions["mask"], torch.from_numpy(mask).float().expand(1, 1, 1, 32, -1))
        assert torch.equal(batch.conditions["first_frame"], to_model(list(np.roll(target, by, 2))))
        text = backbone.encode_text([f"a red ball {'rolls ' * row} {by}"])
        torch.testing.assert_close(batch.text_BTD.float(), text, **close)
    again = batches(opened(path, backbone, Shifting(), **how))
    for one, other in zip(again, found, strict=True):
        assert one.ids == other.ids and one.target_BCFHW.equal(other.target_BCFHW)


def test_variants_are_encoded_once_and_again_where_the_transform_changes(tmp_path, backbone, monkeypatch, capsys):
    path = shifting_data(tmp_path / "data")
    opened(path, backbone, Shifting(), variants=2)
    assert capsys.readouterr().out.count("encoded") > 0
    opened(path, backbone, Shifting(), variants=2)
    assert "encoded" not in capsys.readouterr().out
    monkeypatch.setattr(
        Shifting, "transform", lambda self, example, rng: {**example, "source": 255 - example["source"]}
    )
    opened(path, backbone, Shifting(), variants=2)
    out = capsys.readouterr().out  # both variants are one now, and all masks
    assert "encoded 6 of 6 images," in out and "encoded 4 of 4 images as pixels," in out


def test_variants_of_a_method_that_changes_nothing_are_refused(tmp_path, backbone):
    path = shifting_data(tmp_path / "data")
    with pytest.raises(UserError, match="data.variants is 2, but this method changes no examples"):
        opened(path, backbone, Parallel2D(), variants=2)
    with pytest.raises(UserError, match="data.variants is -1"):
        opened(path, backbone, Parallel2D(), variants=-1)


class Recorder(lightning.LightningModule):
    """Keeps what comes, and trains nothing that matters."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone, self.method = backbone, Shifting()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[str, torch.Tensor]] = []

    def training_step(self, batch, _):
        self.seen.append((batch.ids[0], batch.target_BCFHW))
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], lr=0.1)


@pytest.mark.parametrize("variants", [0, 3])
@pytest.mark.parametrize("steps", [2, 5])
def test_a_resumed_run_sees_the_same_changes(tmp_path, backbone, variants, steps):
    path = shifting_data(tmp_path / "data")

    def train(run: str, resume: Path | None = None, **limits) -> list[tuple[str, torch.Tensor]]:
        model = Recorder(backbone)
        saver = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path / run, save_last=True, every_n_train_steps=1)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = lightning.Trainer(
            accelerator="cpu", callbacks=[saver], use_distributed_sampler=False, **quiet, **limits
        )
        how = {"max_area": 1024, "pixel_multiple": 16, "batch_size": 1, "variants": variants}
        data = LatentDataModule(path, path.parent / "cache", **how)
        trainer.fit(model, data, ckpt_path=resume, weights_only=True)
        return model.seen

    full = train("full", max_epochs=3)
    assert len(full) == 9 and len({tensor.sum().item() for _, tensor in full}) == 9
    seen = train("begun", max_steps=steps) + train("rest", tmp_path / "begun/last.ckpt", max_epochs=3)
    assert [name for name, _ in seen] == [name for name, _ in full]
    assert all(one.equal(other) for (_, one), (_, other) in zip(seen, full, strict=True))
