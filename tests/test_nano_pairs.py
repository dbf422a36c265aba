"""Training pairs of the nano world: the same for the same seed, encoded faithfully, each once in every pass."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imvideoedit.common.errors import UserError
from imvideoedit.nano.batches import PairBatches, StepSampler
from imvideoedit.nano.encoded import EncodedPairs, encoded_pairs
from imvideoedit.nano.mix import PairMix, sample_pair
from imvideoedit.nano.pair_set import PairSet
from imvideoedit.nano.pairs import NanoPairs
from imvideoedit.nano.readouts import label_tokens
from imvideoedit.nano.scene_batches import to_tensor
from imvideoedit.nano.text_tables import TextTable
from imvideoedit.wan.backbone import load_backbone
from imvideoedit.world.edits import sample_compound
from imvideoedit.world.grammar import apply_instruction
from imvideoedit.world.scenes import is_held_out


def numbered_pairs(count: int) -> EncodedPairs:
    numbers = torch.arange(count, dtype=torch.float16).reshape(-1, 1, 1, 1, 1)
    return EncodedPairs(
        numbers,
        -numbers,
        numbers.byte(),
        torch.zeros(count, dtype=torch.long),
        TextTable.of([torch.ones(2, 3).half()], 4),
    )


def test_pairs_follow_from_the_seed_and_the_index():
    assert sample_pair(3, 7) == sample_pair(3, 7)
    assert len({sample_pair(3, index)[0].instruction for index in range(8)}) > 4
    assert sample_pair(3, 7) != sample_pair(4, 7)
    assert sample_pair(3, 7, "test") != sample_pair(3, 7)


def test_texts_come_in_their_shares():
    counts = {"full": 0, "instruction": 0, "empty": 0}
    for index in range(200):
        edit, text = sample_pair(0, index)
        kinds = {edit.edited_prompt: "full", apply_instruction(edit.instruction): "instruction", "": "empty"}
        counts[kinds[text]] += 1
    assert 120 <= counts["full"] <= 160 and 25 <= counts["instruction"] <= 55 and 8 <= counts["empty"] <= 35


def test_a_mix_has_its_shares_and_every_text_its_kind():
    mix = PairMix(compound=0.5, identity=0.2, partial=0.1, imperative=0.3, empty=0.1)
    pairs = [sample_pair(1, index, "train", mix) for index in range(200)]
    tasks = [edit.task for edit, _ in pairs]
    assert 75 <= tasks.count("compound") <= 125 and 20 <= tasks.count("identity") <= 60
    assert all(
        (edit.source == edit.target) == (edit.task == "identity") for edit, _ in pairs if edit.task != "compound"
    )
    texts = [
        {edit.edited_prompt: "full", edit.instruction: "typed", "": "empty"}.get(t, "partial") for edit, t in pairs
    ]
    assert 75 <= texts.count("full") <= 140 and 25 <= texts.count("typed") <= 75
    assert 5 <= texts.count("partial") <= 35 and 8 <= texts.count("empty") <= 35
    assert sample_pair(1, 3, "test", mix) == sample_pair(1, 3, "test")


@pytest.mark.parametrize("wrong", [{"compound": -0.1}, {"compound": 0.7, "identity": 0.4}, {"empty": 0.9}])
def test_shares_that_cannot_be_are_named(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        PairMix(**wrong)


@given(seed=st.integers(0, 10**6), count=st.integers(2, 5))
@settings(max_examples=40, deadline=None)
def test_a_compound_instruction_leads_to_the_very_prompt(seed, count):
    edit = sample_compound(np.random.default_rng(seed), "train", count)
    assert len(edit.instruction.split(" and ")) == count
    found = apply_instruction(edit.instruction, edit.source_prompt)
    assert sorted(found.split(", ")) == sorted(edit.edited_prompt.split(", "))
    assert not any(is_held_out(thing.color, thing.kind) for thing in edit.target.things)


def test_cached_pairs_are_the_encoded_ones_and_another_mix_is_another_file(wan_folder, tmp_path, monkeypatch):
    backbone = load_backbone(str(wan_folder), device="cpu")
    three = PairSet(5, 3, "train", 32)
    fresh = encoded_pairs(None, backbone, three)
    first = encoded_pairs(tmp_path, backbone, three)
    with monkeypatch.context() as patch:
        patch.setattr(backbone, "encode_video", None)  # what is on disk needs no encoder
        again = encoded_pairs(tmp_path, backbone, three)
    for pairs in (first, again):
        assert pairs.batch([2, 0]).source_BCFHW.equal(fresh.batch([2, 0]).source_BCFHW)
        assert pairs.batch([1]).text_BTD.equal(fresh.batch([1]).text_BTD) and len(pairs) == 3
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    encoded_pairs(tmp_path, backbone, replace(three, mix=PairMix(compound=1.0)))
    assert all(path.read_bytes() == data for path, data in kept.items())  # another mix is other pairs
    for path in kept:
        path.write_bytes(kept[path][:40])
    repaired = encoded_pairs(tmp_path, backbone, three)
    assert repaired.batch([2]).target_BCFHW.equal(fresh.batch([2]).target_BCFHW)
    assert {path: path.read_bytes() for path in kept} == kept
    more = encoded_pairs(tmp_path, backbone, replace(three, count=4))
    assert more.batch([2]).source_BCFHW.equal(fresh.batch([2]).source_BCFHW) and len(more) == 4
    assert all(path.read_bytes() == data for path, data in kept.items())


def test_pairs_of_videos_are_the_exact_renderings(wan_folder, tmp_path):
    backbone = load_backbone(str(wan_folder), device="cpu")
    clips = PairSet(5, 2, "train", 32, frames=5)
    for found in [encoded_pairs(tmp_path, backbone, clips) for _ in range(2)]:
        batch = found.batch([1])
        edit, _ = sample_pair(5, 1, "train", PairMix())
        for latents, video in zip((batch.source_BCFHW, batch.target_BCFHW), edit.render(5, (32, 32)), strict=False):
            exact = backbone.encode_video(to_tensor(video)[None])
            torch.testing.assert_close(latents, exact, rtol=2e-3, atol=2e-3)
        assert batch.labels["content"].equal(label_tokens(edit.target, 2, batch.labels["content"].shape[2:4])[None])
    with pytest.raises(UserError, match=r"data\.frames is 4"):
        NanoPairs(frames=4)


def test_training_never_shows_a_held_out_composition_and_validation_always_does():
    for index in range(40):
        edit, _ = sample_pair(0, index, "train")
        things = edit.source.things + edit.target.things
        assert not any(is_held_out(thing.color, thing.kind) for thing in things)
        edit, text = sample_pair(0, index, "test")
        assert is_held_out(edit.source.things[0].color, edit.source.things[0].kind)
        assert text == edit.edited_prompt


def test_encoded_pairs_are_the_backbones_latents_and_texts(wan_folder):
    backbone = load_backbone(str(wan_folder), device="cpu")
    pairs = encoded_pairs(None, backbone, PairSet(5, 5, "train", 32))
    batch = pairs.batch([4, 1])
    for row, index in enumerate((4, 1)):
        edit, text = sample_pair(5, index)
        source, target, _ = edit.render(1, (32, 32))
        for found, image in ((batch.source_BCFHW, source), (batch.target_BCFHW, target)):
            torch.testing.assert_close(
                found[row], backbone.encode_video(to_tensor(image)[None])[0], rtol=2e-3, atol=2e-3
            )
        torch.testing.assert_close(batch.text_BTD[row], backbone.encode_text([text])[0], rtol=2e-3, atol=2e-3)
    assert len(pairs.texts.lengths_N) == len({sample_pair(5, index)[1] for index in range(5)})


@given(count=st.integers(1, 30), size=st.integers(1, 12), seed=st.integers(0, 99))
def test_every_pass_has_every_pair_once(count, size, seed):
    batches = PairBatches(numbered_pairs(count), size, seed)
    dealt = [index for step in range(count) for index in batches.indices(step)]
    for start in range(0, len(dealt), count):
        assert sorted(dealt[start : start + count]) == list(range(count))


def test_a_batch_is_a_function_of_seed_and_index_alone():
    pairs = numbered_pairs(50)
    forward, late = PairBatches(pairs, 8, 1), PairBatches(pairs, 8, 1)
    expected = [forward[step].source_BCFHW.flatten().tolist() for step in range(20)]
    assert late[19].source_BCFHW.flatten().tolist() == expected[19]
    assert PairBatches(pairs, 8, 2)[0].source_BCFHW.flatten().tolist() != expected[0]
    assert forward[3].text_BTD.shape == (8, 4, 3) and forward[3].text_BTD[:, 2:].eq(0).all()


def test_processes_take_turns():
    ranks = [list(StepSampler(steps=6, start=2, rank=rank, world=2)) for rank in range(2)]
    assert sorted(np.concatenate(ranks)) == list(range(4, 12))
    assert len(StepSampler(steps=6, start=2)) == 6


@pytest.mark.parametrize("wrong", [{"pairs": 0}, {"batch_size": 0}, {"validation_pairs": -1}])
def test_counts_out_of_range_are_named(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        NanoPairs(**wrong)


def test_resolution_that_does_not_suit_the_backbone_is_named(wan_folder):
    data = NanoPairs(pairs=1, resolution=60)
    backbone = load_backbone(str(wan_folder), device="cpu", parts=("vae",))
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(backbone=backbone))
    with pytest.raises(UserError, match="multiples of 16"):
        data.setup("fit")
