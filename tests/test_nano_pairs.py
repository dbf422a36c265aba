"""Training pairs of the nano world: the same for the same seed, encoded faithfully, dealt out without loss."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imvideoedit.backbone import load_backbone
from imvideoedit.errors import UserError
from imvideoedit.nano.grammar import apply_instruction
from imvideoedit.nano.pairs import EncodedPairs, NanoPairs, PairBatches, StepSampler, encode_pairs, sample_pair
from imvideoedit.nano.scenes import is_held_out
from imvideoedit.nano.world import to_tensor


def numbered_pairs(count: int) -> EncodedPairs:
    numbers = torch.arange(count, dtype=torch.float16).reshape(-1, 1, 1, 1, 1)
    return EncodedPairs(numbers, -numbers, [0] * count, [torch.ones(2, 3).half()], tokens=4)


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
    pairs = encode_pairs(backbone, seed=5, count=5, split="train", resolution=32, chunk=2)
    batch = pairs.batch([4, 1])
    for row, index in enumerate((4, 1)):
        edit, text = sample_pair(5, index)
        source, target, _ = edit.render(1, (32, 32))
        for found, image in ((batch.source_BCFHW, source), (batch.target_BCFHW, target)):
            torch.testing.assert_close(
                found[row], backbone.encode_video(to_tensor(image)[None])[0], rtol=2e-3, atol=2e-3
            )
        torch.testing.assert_close(batch.text_BTD[row], backbone.encode_text([text])[0], rtol=2e-3, atol=2e-3)
    assert len(pairs.texts_TD) == len({sample_pair(5, index)[1] for index in range(5)})


@given(count=st.integers(1, 30), size=st.integers(1, 12), seed=st.integers(0, 99))
def test_every_pass_deals_out_every_pair_once(count, size, seed):
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


def test_processes_share_the_steps_out():
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
