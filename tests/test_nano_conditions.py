"""Training pairs and NanoEdit-Bench give a method the inputs it declares, and pairs as it transforms them."""

import hashlib
import json
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from lightning import Trainer
from torch.optim import AdamW

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import Input
from imvideoedit.editing.pipeline import EditPipeline, EditResult
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.evaluation.nano.exact import PSNR_CAP
from imvideoedit.evaluation.nano.preview import NanoPreview
from imvideoedit.evaluation.nano.report import write_report
from imvideoedit.evaluation.nano.suite import run_nano_suite
from imvideoedit.methods.adapter_file import METHODS, load_adapter
from imvideoedit.methods.adapter_header import read_header
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.nano.batches import PairBatches
from imvideoedit.nano.encoded import encoded_pairs
from imvideoedit.nano.inputs import Preparation
from imvideoedit.nano.mix import sample_pair
from imvideoedit.nano.pair_set import PairSet
from imvideoedit.nano.pairs import NanoPairs
from imvideoedit.nano.scene_batches import to_tensor
from imvideoedit.training.export import ExportAdapter
from imvideoedit.training.task import EditTask
from imvideoedit.wan.backbone import load_backbone
from imvideoedit.world.edits import Edit

INPUTS = (
    Input("first_frame", "image", from_target=True),
    Input("mask", "mask"),
    Input("reference", "image", "raw", required=False),
    Input("source_prompt", "text", required=False),
    Input("depth", "video", required=False),
)
GIVEN = ("first_frame", "mask", "reference", "source_prompt")
SMALL = SamplingConfig(steps=1, guidance=1.0, max_area=64 * 64)


class Framed(PredictUpdate):
    """Takes the first frame for the source where that is wanted; notes what it gets."""

    name = "framed"
    inputs = INPUTS
    seen: list[Any] = []

    def velocity(self, transformer, batch, known=None):
        Framed.seen.append(batch)
        return super().velocity(transformer, batch, known)


class Mirrored(Framed):
    """Mirrors half of the examples, and says so."""

    name = "mirrored"
    inputs = (Input("mask", "mask"),)

    def transform(self, example, rng):
        if rng.random() < 0.5:
            return example
        flipped = {key: v if isinstance(v, str) else v[:, :, ::-1] for key, v in example.items()}
        return flipped | {"prompt": f"mirrored, {example['prompt']}"}


class Darkened(PredictUpdate):
    """A pretext on the source alone."""

    name = "darkened"

    def transform(self, example, rng):
        return example | {"source": example["source"] // 2}


@pytest.fixture(scope="module")
def backbone(wan_folder):
    return load_backbone(str(wan_folder), device="cpu")


def half(latents):
    """As the cache stores them."""
    return latents.half().float()


def asked(method, **options) -> PairSet:
    return PairSet(5, 3, "train", 32, preparation=Preparation.of(method), **options)


def test_plain_pairs_have_the_keys_they_had():
    mix = {"compound": 0.0, "identity": 0.0, "partial": 0.2, "imperative": 0.0, "empty": 0.1}
    for pairs in (PairSet(5, 3, "train", 32), PairSet(1, 2, "test", frames=5), asked(PredictUpdate())):
        settings = [2, "encoder", pairs.seed, pairs.split, pairs.resolution, mix, pairs.frames]
        digest = hashlib.sha256(json.dumps(settings).encode())
        for index in range(8):
            edit, text = sample_pair(pairs.seed, index, pairs.split)
            source, target, _ = edit.render(pairs.frames, (pairs.resolution, pairs.resolution))
            digest.update(text.encode() + source[0].tobytes() + target[0].tobytes())
        assert pairs.key("encoder") == digest.hexdigest()
        names = [hashlib.sha256(f"{digest.hexdigest()} {number}".encode()) for number in range(pairs.count)]
        assert list(pairs.keys("encoder")) == [name.hexdigest()[:32] for name in names]


@pytest.mark.parametrize("frames", [1, 5])
def test_conditions_are_the_exact_inputs_as_the_backbone_encodes_them(backbone, tmp_path, frames):
    pairs = asked(Framed(), frames=frames)
    for found in (encoded_pairs(tmp_path, backbone, pairs) for _ in range(2)):  # made, and read again
        batch = found.batch([2, 0])
        assert set(batch.conditions) == set(GIVEN)
        for row, index in enumerate((2, 0)):
            edit, _ = sample_pair(5, index)
            exact = edit.inputs(frames, (32, 32))
            told = {name: values[row] for name, values in batch.conditions.items()}
            first = backbone.encode_video(to_tensor(exact["first_frame"][None])[None])
            assert told["first_frame"].shape == (4, 1, 4, 4)
            # The encoder takes a batch, so its last bits may differ.
            torch.testing.assert_close(told["first_frame"], half(first)[0], rtol=2e-3, atol=2e-3)
            assert told["mask"].dtype == torch.float32
            assert np.array_equal(told["mask"].numpy(), exact["mask"][None].astype(np.float32))
            assert torch.equal(told["reference"], to_tensor(exact["reference"][None]))
            (text_TD,) = backbone.encode_text([edit.source_prompt])
            torch.testing.assert_close(told["source_prompt"], text_TD, rtol=2e-3, atol=2e-3)
        assert batch.labels["content"].shape[1] == (frames - 1) // 4 + 1


def test_plain_pairs_and_those_with_inputs_share_a_cache_untouched(backbone, tmp_path):
    plain = encoded_pairs(tmp_path, backbone, PairSet(5, 3, "train", 32))
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    framed = encoded_pairs(tmp_path, backbone, asked(Framed()))
    assert all(path.read_bytes() == data for path, data in kept.items())
    assert plain.batch([1]).conditions == {}
    assert torch.equal(framed.batch([1]).target_BCFHW, plain.batch([1]).target_BCFHW)
    again = encoded_pairs(tmp_path, backbone, asked(PredictUpdate()))
    assert torch.equal(again.batch([1]).source_BCFHW, plain.batch([1]).source_BCFHW)
    assert set(tmp_path.rglob("*.safetensors")) >= set(kept)


def test_a_transform_is_applied_by_seed_pair_and_variant(backbone, tmp_path):
    pairs = asked(Mirrored(), variants=3)
    found = encoded_pairs(tmp_path, backbone, pairs)
    assert len(found) == 3 and found.labels_NFhwA is None, "labels of a mirrored target"
    mirrored = set()
    for variant in range(3):
        for index in range(3):
            edit, text = sample_pair(5, index)
            flip = np.random.default_rng([5, index, variant]).random() >= 0.5
            mirrored.add((variant, index, flip))
            source, target, _ = edit.render(1, (32, 32))
            mask = edit.inputs(1, (32, 32))["mask"]
            batch = found.batch([index + 3 * variant])
            turn = (lambda frames: frames[:, :, ::-1].copy()) if flip else (lambda frames: frames)
            for latents, frames in ((batch.source_BCFHW, source), (batch.target_BCFHW, target)):
                exact = backbone.encode_video(to_tensor(turn(frames))[None])
                torch.testing.assert_close(latents, exact, rtol=2e-3, atol=2e-3)
            assert np.array_equal(batch.conditions["mask"][0, 0].numpy(), turn(mask).astype(np.float32))
            (text_TD,) = backbone.encode_text([f"mirrored, {text}" if flip else text])
            torch.testing.assert_close(batch.text_BTD[0], text_TD, rtol=2e-3, atol=2e-3)
    assert {flip for *_, flip in mirrored} == {True, False}
    fewer = encoded_pairs(tmp_path, backbone, asked(Mirrored(), variants=1))
    assert torch.equal(fewer.batch([2]).source_BCFHW, found.batch([2]).source_BCFHW)


def test_passes_take_the_variants_in_turn(backbone):
    found = encoded_pairs(None, backbone, asked(Mirrored(), variants=2))
    batches = PairBatches(found, 3, seed=0)
    passes = [sorted(batches.indices(number)) for number in range(4)]
    assert passes == [[0, 1, 2], [3, 4, 5], [0, 1, 2], [3, 4, 5]]
    assert torch.equal(batches[1].source_BCFHW, found.batch(batches.indices(1)).source_BCFHW)


def test_a_transform_that_leaves_the_target_leaves_its_labels_and_another_has_another_key(backbone):
    darkened, plain = (encoded_pairs(None, backbone, asked(method)) for method in (Darkened(), PredictUpdate()))
    assert torch.equal(darkened.batch([1]).labels["content"], plain.batch([1]).labels["content"])
    assert torch.equal(darkened.target_NCFHW, plain.target_NCFHW)
    assert not torch.equal(darkened.source_NCFHW, plain.source_NCFHW)

    class Otherwise(Darkened):
        def transform(self, example, rng):
            return example | {"source": example["source"] // 3}

    methods = PredictUpdate(), Darkened(), Darkened(gate=False), Otherwise(), Mirrored()
    assert len({asked(method).key("encoder") for method in methods}) == len(methods)

    class Cropping(Darkened):
        def transform(self, example, rng):
            return example | {"source": example["source"][:, 1:]}

    with pytest.raises(ValueError, match="must keep names and shapes"):
        asked(Cropping()).example(0)


def data_for(method, backbone, **options) -> NanoPairs:
    data = NanoPairs(pairs=2, batch_size=2, validation_pairs=1, resolution=32, **options)
    module = SimpleNamespace(backbone=backbone, method=method)
    strategy = SimpleNamespace(barrier=lambda: None, root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(lightning_module=module, global_rank=0, world_size=1, strategy=strategy)
    return data


def test_what_the_nano_world_has_not_is_refused_in_one_line(backbone):
    class Posed(PredictUpdate):
        name = "posed"
        inputs = (Input("pose", "video"),)

    refusal = r"no pose .video., which the method needs; it has first_frame .image., mask .mask., reference .image."
    with pytest.raises(UserError, match=refusal):
        data_for(Posed(), backbone).setup("fit")
    preview = NanoPreview("nowhere", 1, SamplingConfig())
    with pytest.raises(UserError, match=refusal):
        preview.on_fit_start(None, SimpleNamespace(method=Posed()))
    with pytest.raises(UserError, match="variants is 2, but the method predict_update changes no example"):
        data_for(PredictUpdate(), backbone, variants=2).setup("fit")
    with pytest.raises(UserError, match="variants is 0"):
        NanoPairs(variants=0)


def test_held_out_pairs_have_the_inputs_and_always_the_same_transform(backbone):
    data = data_for(Mirrored(), backbone, frames=5, variants=2)
    data.setup("fit")
    (batch,) = data.val_dataloader()
    edit, text = sample_pair(0, 0, "test")
    example = {"target": edit.render(5, (32, 32))[1], "mask": edit.inputs(5, (32, 32))["mask"].astype(np.uint8) * 255}
    example |= {"source": edit.render(5, (32, 32))[0], "prompt": text}
    changed = Mirrored().transform(example, np.random.default_rng([0, 0, 0]))
    assert np.array_equal(batch.conditions["mask"][0, 0].numpy(), changed["mask"] > 127)
    exact = backbone.encode_video(to_tensor(np.ascontiguousarray(changed["target"]))[None])
    torch.testing.assert_close(batch.target_BCFHW, exact, rtol=2e-3, atol=2e-3)
    plain = data_for(PredictUpdate(), backbone, frames=5)
    plain.setup("fit")
    (batch,) = plain.val_dataloader()
    assert batch.target_BCFHW.shape[2] == 1 and batch.conditions == {}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of two steps on exact video pairs of the nano world, and the batches that the method saw."""
    folder = tmp_path_factory.mktemp("framed")
    backbone = load_backbone("nano", device="cpu")
    task = EditTask(backbone, Framed(adapter="lora", rank=2), partial(AdamW, lr=1e-3), warmup=0)
    data = NanoPairs(pairs=2, batch_size=1, validation_pairs=1, frames=5)
    sampling = SMALL
    Framed.seen.clear()
    Trainer(
        max_steps=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[ExportAdapter(folder / "adapter.safetensors", sampling)],
        default_root_dir=folder,
        num_sanity_val_steps=0,
    ).fit(task, data)
    return folder, list(Framed.seen)


def test_training_on_nano_pairs_gives_the_method_its_inputs(trained):
    folder, batches = trained
    trained_on = [batch for batch in batches if batch.source_BCFHW.shape[2] == 2]
    assert len(trained_on) >= 2 and all(set(batch.conditions) == set(GIVEN) for batch in batches)
    edits = [sample_pair(0, index)[0] for index in range(2)]
    masks = [edit.inputs(5)["mask"].astype(np.float32) for edit in edits]
    for batch in trained_on[:2]:
        assert any(np.array_equal(batch.conditions["mask"][0, 0].numpy(), mask) for mask in masks)
    header = read_header(folder / "adapter.safetensors")
    assert (header.format_version, [each["name"] for each in header.inputs]) == (2, [each.name for each in INPUTS])


class ExactStart(EditPipeline):
    """An editor that shows the first frame it is given, over and over, and notes what it is given."""

    def __call__(self, video_FHWC, instruction, prompt=None, source_prompt=None, inputs=None, **settings) -> Any:
        self.given.append((video_FHWC, source_prompt, inputs))
        frames = np.repeat(inputs["first_frame"][None], len(video_FHWC), axis=0)
        return EditResult(frames, "", source_prompt, 0, self.config)


def test_the_suite_gives_a_trained_method_the_exact_inputs_of_every_edit(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "framed", Framed)
    backbone = load_backbone("nano", device="cpu")
    method = load_adapter(trained[0] / "adapter.safetensors", backbone.transformer)
    pipeline = ExactStart(backbone, method, SamplingConfig(steps=1))
    pipeline.given = []
    result = run_nano_suite(pipeline, tmp_path, per_task=1, frames=(1, 5))
    # Of a single frame it is given the exact answer; a frozen video is not the answer of a longer one.
    one, five = (result["lengths"][length] for length in "15")
    assert one["overall"] == pytest.approx(100, abs=0.01) and one["frame_psnr"] == PSNR_CAP
    assert five["overall"] < 95
    assert result["inputs"] == list(GIVEN) == json.loads((tmp_path / "result.json").read_text())["inputs"]
    assert len(pipeline.given) == 20
    for source, source_prompt, inputs in pipeline.given:
        assert tuple(inputs) == GIVEN and inputs["source_prompt"] == source_prompt
        assert inputs["mask"].shape == source.shape[:3] and inputs["mask"].dtype == bool
        assert inputs["reference"].shape == inputs["first_frame"].shape == source.shape[1:]
    rows = pyarrow.parquet.read_table(tmp_path / "videos.parquet").to_pylist()
    assert {(row["editor"], row["inputs"]) for row in rows} == {
        ("adapter", ", ".join(GIVEN)), ("copy", ""), ("ceiling", "")
    }  # fmt: skip
    page = write_report(tmp_path, tmp_path / "report").read_text()
    assert f"exact inputs given: {', '.join(GIVEN)}." in page


def test_the_pipeline_encodes_what_the_suite_gives_as_training_did(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "framed", Framed)
    backbone = load_backbone("nano", device="cpu")
    method = load_adapter(trained[0] / "adapter.safetensors", backbone.transformer)
    Framed.seen.clear()
    edit: Edit = sample_pair(0, 0)[0]
    source = edit.render(5)[0]
    inputs = {name: value for name, value in edit.inputs(5).items() if name in GIVEN}
    EditPipeline(backbone, method, SMALL)(source, edit.instruction, inputs=inputs)
    exact = encoded_pairs(None, backbone, PairSet(0, 1, "train", frames=5, preparation=Preparation.of(Framed())))
    assert Framed.seen
    for batch in Framed.seen:
        for name, values in exact.batch([0]).conditions.items():
            torch.testing.assert_close(batch.conditions[name], values, rtol=5e-3, atol=5e-3)
