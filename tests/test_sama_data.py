"""SAMA's data: kinds of rows by shares, plain clips and their next frames, anchors, SigLIP; steps on nano."""

import json
from collections import Counter
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning import Trainer
from PIL import Image
from torch.optim import AdamW
from transformers import SiglipModel

from imvideoedit.common.bundled import SIGLIP
from imvideoedit.common.errors import UserError
from imvideoedit.data.buckets import BucketBatchSampler
from imvideoedit.data.records import open_records
from imvideoedit.data.sizes import make_buckets
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.methods.motion_pretexts import SENTENCES
from imvideoedit.methods.sama import Sama
from imvideoedit.nano.batches import Clips
from imvideoedit.nano.fit_siglip import as_pixels, build_siglip, main, matched, scenes
from imvideoedit.nano.inputs import Preparation
from imvideoedit.nano.mix import sample_pair
from imvideoedit.nano.pair_set import PairSet
from imvideoedit.nano.pairs import NanoPairs
from imvideoedit.training.data_module import LatentDataModule
from imvideoedit.training.export import ExportAdapter
from imvideoedit.training.task import EditTask
from imvideoedit.wan.backbone import load_backbone
from imvideoedit.world.render import render
from tests.processes import CHECKOUT


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(0)
    build_siglip().save_pretrained(folder)
    return str(folder)


def clip_folder(folder, frames, level=0):
    """A clip as PNG files; each frame has a level of its own."""
    folder.mkdir(parents=True)
    for place in range(frames):
        Image.fromarray(np.full((32, 32, 3), level + 10 * place, np.uint8)).save(folder / f"{place:03d}.png")
    return folder.name


@pytest.fixture
def rows(tmp_path):
    """Four images, two pairs of clips, two plain clips of nine frames."""
    folder = tmp_path / "pairs"
    lines = []
    for row in range(4):
        for side in "st":
            folder.mkdir(exist_ok=True)
            Image.fromarray(np.full((32, 32, 3), 30 * row, np.uint8)).save(folder / f"i{row}{side}.png")
        lines.append({"id": f"i{row}", "source": f"i{row}s.png", "target": f"i{row}t.png"})
    for row in range(2):
        sides = {
            name: clip_folder(folder / f"v{row}{name}", 5, level) for name, level in (("source", 0), ("target", 40))
        }
        lines.append({"id": f"v{row}", **sides})
    for row in range(2):
        name = clip_folder(folder / f"p{row}", 9, 20 * row)
        lines.append({"id": f"p{row}", "source": name, "target": name, "edited_prompt": "a red ball"})
    for line in lines[:6]:
        line |= {"instruction": "a blue cube", "edited_prompt": "snow"}
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


# Rows by kind.


def test_shares_of_the_steps_are_kept_whatever_rows_there_are():
    buckets = [("image", 1)] * 90 + [("video", 5)] * 6 + [("plain", 5)] * 4
    shares = {"image": 0.5, "video": 0.3, "plain": 0.2}
    how = {"seed": 1, "epochs_apart": True, "epochs": 40, "shares": shares, "sizes": {"image": 4}}
    sampler = BucketBatchSampler(buckets, 2, **how)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    kinds = Counter(buckets[batch[0] % 100][0] for batch in batches)
    for kind, share in shares.items():
        assert abs(kinds[kind] / len(batches) - share) < 0.03
    for batch in batches:
        assert len({buckets[row % 100] for row in batch}) == 1
        assert len(batch) <= (4 if buckets[batch[0] % 100][0] == "image" else 2)
    assert {row % 100 for batch in batches for row in batch} == set(range(100)), "left out are others in each pass"
    assert batches == list(BucketBatchSampler(buckets, 2, **how))


def test_all_batches_of_a_step_are_of_one_kind_and_resume():
    buckets = [("image", 1)] * 9 + [("plain", 5)] * 5
    how = {"seed": 1, "epochs": 3, "group": 4, "shares": {"image": 0.4, "plain": 0.6}, "sizes": {"image": 3}}
    ranks = [list(BucketBatchSampler(buckets, 1, rank=rank, world_size=2, **how)) for rank in range(2)]
    assert len(ranks[0]) == len(ranks[1])
    for step in range(0, len(ranks[0]), 2):
        own = [batch for rank in ranks for batch in rank[step : step + 2]]
        assert len({buckets[row] for batch in own for row in batch}) == 1 and len({len(batch) for batch in own}) == 1
    later = BucketBatchSampler(buckets, 1, **how)
    later.load_state_dict(later.state_after(5))
    assert list(later) == list(BucketBatchSampler(buckets, 1, **how))[5:]


def test_without_shares_each_row_comes_once():
    buckets = [("image", 1)] * 9 + [("plain", 5)] * 5
    batches = list(BucketBatchSampler(buckets, 2, sizes={"image": 3}))
    assert sorted(row for batch in batches for row in batch) == list(range(14))


def test_rows_have_kinds_and_instructions_where_a_method_reads_them(rows):
    records = open_records(rows / "pairs/rows.jsonl", "jsonl")
    assert [record.kind for record in records] == ["image"] * 4 + ["video"] * 2 + ["plain"] * 2
    assert [record.prompt for record in records] == ["snow"] * 6 + ["a red ball"] * 2
    assert [record.instructed.prompt for record in records] == ["a blue cube"] * 6 + ["a red ball"] * 2


def data_of(rows, backbone, method, **changes):
    options = {"frames": (1, 5), "max_area": 1024, "pixel_multiple": 16, "batch_size": 1, "epochs": 4, "seed": 3}
    options["format"] = "jsonl"
    data = LatentDataModule(rows / "pairs/rows.jsonl", rows / "cache", **{**options, **changes})
    strategy = SimpleNamespace(barrier=lambda: None, root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(
        **{"global_rank": 0, "world_size": 1, "accumulate_grad_batches": 1, "strategy": strategy},
        lightning_module=SimpleNamespace(backbone=backbone, method=method),
    )
    data.setup()
    return data


def test_a_run_mixes_images_pairs_of_clips_and_plain_clips_changed_by_pretexts(rows, wan_folder):
    backbone = load_backbone(str(wan_folder), device="cpu")
    shares = {"image": 0.3, "video": 0.2, "plain": 0.5}
    data = data_of(rows, backbone, Sama(pretext=True), shares=shares, image_batch=2)
    seen = Counter()
    for examples in data.train_dataloader():
        first = examples.values[0]
        kind = {"i": "image", "v": "video", "p": "plain"}[examples.ids[0][0]]
        seen[kind] += 1
        assert len(examples.ids) <= (2 if kind == "image" else 1)
        assert np.array_equal(first["anchor"], first["target"][:1]) and "ahead" not in first
        if kind != "plain":
            change = 40 if kind == "video" else 0
            assert np.array_equal(first["source"] + change, first["target"]) and first["prompt"] == "a blue cube"
            continue
        level = 20 * int(examples.ids[0][1])
        assert first["target"][:, 0, 0, 0].tolist() == [level + 10 * place for place in range(5)]
        if first["prompt"].startswith(SENTENCES["speed"]):
            assert first["source"][:, 0, 0, 0].tolist() == [level + 20 * place for place in range(5)]
        batch = data.on_after_batch_transfer(examples, 0)
        assert batch.conditions["anchor"].shape == (1, 3, 1, 32, 32)
    assert {"image", "video", "plain"} == set(seen) and seen["plain"] > seen["video"]
    cached = data_of(rows, backbone, Sama(), shares=shares)
    batch = next(iter(cached.train_dataloader()))
    assert set(batch.conditions) == {"anchor"} and torch.is_tensor(batch.source_BCFHW), "encoded once without a pretext"


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({"image": 0.5, "video": 0.5}, "has rows of kind plain; give them a share"),
        ({"image": 0.5, "clips": 0.5}, "give shares of image, video, plain"),
        ({"image": 0.5, "video": 0.3, "plain": 0.1}, "add up to 1"),
    ],
)
def test_shares_that_do_not_fit_the_rows_are_refused(rows, wan_folder, shares, words):
    backbone = load_backbone(str(wan_folder), device="cpu", parts=())
    with pytest.raises(UserError, match=words):
        data_of(rows, backbone, Sama(), shares=shares)


def test_aspects_of_buckets_have_a_limit():
    sizes = make_buckets(480 * 832, 16, 2.0)
    assert all(max(size) <= 2 * min(size) for size in sizes) and set(sizes) < set(make_buckets(480 * 832, 16))
    with pytest.raises(UserError, match="max_aspect is 0.5"):
        make_buckets(1000, 16, 0.5)


# The nano world.


def test_plain_clips_have_their_captions_and_go_on_behind_their_end():
    asked = Preparation.of(Sama(pretext=True))
    pairs = PairSet(0, 4, "train", 32, frames=5, preparation=asked, plain=True, variants=30)
    stills = PairSet(0, 4, "train", 32, preparation=asked)
    edit, text = pairs.pair(1)
    assert edit.source == edit.target and text == edit.source_prompt
    whole, seen = render(edit.source, 9, (32, 32)), set()
    for variant in range(30):
        example = pairs.example(1, variant)
        assert np.array_equal(example["target"], whole[:5]) and np.array_equal(example["anchor"], whole[:1])
        sentence = example["prompt"].removesuffix(text).strip()
        seen.add(sentence)
        if sentence == SENTENCES["speed"]:
            assert np.array_equal(example["source"], whole[::2])
        elif sentence == "":
            assert np.array_equal(example["source"], whole[:5])
    assert seen == set(SENTENCES.values())
    edit, text = stills.pair(1)
    assert text == edit.instruction == sample_pair(0, 1)[0].instruction
    assert pairs.key("e") != PairSet(0, 4, "train", 32, frames=5, preparation=asked, variants=30).key("e")
    with pytest.raises(UserError, match="kind is 'still'; choose filmed, exact or plain"):
        Clips(kind="still")


def test_two_steps_on_nano_train_the_whole_backbone_and_its_adapter_edits_by_the_instruction(tmp_path, siglip):
    backbone = load_backbone("nano", device="cpu")
    method = Sama(siglip=siglip, width=64, hidden=16, pretext=True)
    task = EditTask(backbone, method, partial(AdamW, lr=1e-3), warmup=0, ema_decay=0.9998)
    clips = [Clips(kind="plain", frames=5, pairs=2, batch_size=1, share=0.5)]
    data = NanoPairs(pairs=2, batch_size=2, validation_pairs=1, resolution=32, clips=clips, variants=2)
    file = tmp_path / "adapter.safetensors"
    callback = ExportAdapter(file, SamplingConfig(max_area=1024, max_frames=5, overlap=4, steps=2, guidance=2.0))
    before = backbone.parameter_hash()
    Trainer(
        max_steps=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[callback],
        default_root_dir=tmp_path,
        num_sanity_val_steps=0,
    ).fit(task, data)
    assert task.backbone_hash == before
    pipeline = EditPipeline.from_pretrained(adapter=file, device="cpu")
    video = render(sample_pair(0, 0)[0].source, 5, (32, 32))
    result = pipeline(video, "make it red", inputs=None)
    assert result.prompt == "make it red" and result.frames.shape == video.shape
    with pytest.raises(UserError, match="does not know the input first_frame; it takes none"):
        pipeline(video, "make it red", inputs={"first_frame": video[0]})


def composed(name):
    with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        return compose("train", [f"+experiment={name}"])


def test_the_experiments_compose_into_their_stages():
    for name, pretext, kinds in (
        ("sama_nano_stage0", True, ["plain"]),
        ("sama_nano_stage1", False, ["exact"]),
    ):
        config = composed(name)
        assert instantiate(config.method).options.pretext == pretext and config.task.ema_decay == 0.9998
        assert [each.kind for each in config.data.clips] == kinds and config.name == name
        assert instantiate(config.data).variants == (4 if pretext else 1)
    for name, pretext in (("sama_stage0", True), ("sama_stage1", False)):
        config = composed(name)
        assert config.method.pretext == pretext and sum(config.data.shares.values()) == pytest.approx(1)
        assert config.data.max_aspect == 2 and config.global_batch * config.data.image_batch == 448
    assert config.task.start == "runs/sama_stage0/adapter.safetensors"


def test_the_command_trains_a_siglip_that_makes_the_tokens(tmp_path, capsys):
    main(["--output", str(tmp_path / "siglip"), "--steps", "1", "--pictures", "128"])
    assert "held-out pictures find their caption among 64" in capsys.readouterr().out
    method = Sama(siglip=str(tmp_path / "siglip"), width=64)
    batch = SimpleNamespace(labels={}, conditions={"anchor": torch.zeros(1, 3, 1, 64, 64)})
    assert method.siglip(batch.conditions["anchor"][:, :, 0]).shape == (1, 65, 64)
    with pytest.raises(SystemExit) as ended:
        main(["--output", str(tmp_path / "other"), "--pictures", "3"])
    assert ended.value.code == 2 and "128 or more" in capsys.readouterr().err


def test_the_bundled_siglip_is_small_suits_the_experiments_and_tells_scenes_apart():
    method = instantiate(composed("sama_nano_stage0").method)
    assert SIGLIP.is_dir() and sum(file.stat().st_size for file in SIGLIP.iterdir()) <= 2**21
    model = SiglipModel.from_pretrained(SIGLIP, dtype=torch.float32).eval()
    assert matched(model, 1) > 0.5, "of 64 captions, by chance one in 64"
    pictures = as_pixels(scenes(1, 3, "test")[0])
    tokens = method.siglip(pictures)
    assert tokens.shape == (3, 65, method.options.width) and (tokens[0] - tokens[1]).abs().mean() > 0.1
