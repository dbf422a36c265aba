"""Costs from shapes alone: FLOPs against closed forms, memory against real tensors, the cards that are enough."""

import pytest
import torch

from imvideoedit.common.errors import UserError
from imvideoedit.common.machine import is_out_of_memory
from imvideoedit.methods.freeprop import FreeProp
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.training.batches import accumulation_steps
from imvideoedit.training.estimate import GIB, Setting, estimate, fitting
from imvideoedit.training.flops import AllocationTracker, Pairs, loss_of, step_peak, useful_flops
from imvideoedit.wan.bases import WAN_1_3B, WAN_14B, meta_transformer
from tests.conftest import TINY_TRANSFORMER, tiny_batch, tiny_transformer

STILL = Pairs(1, 60, 104)  # 480x832


def test_memory_is_that_of_the_tensors_alive():
    before = torch.ones(1000)
    memory = AllocationTracker()
    with memory:
        one = before + 1  # 4000 bytes
        two = before.t() * 2
        del one
        three = two.view(10, 100)[2:]  # no storage of its own
        four = three.clone()
    assert memory.peak == 8000 and memory.live == 4000 + four.nbytes


def test_a_steps_peak_counts_what_is_stored_and_not_the_weights():
    weight = torch.nn.Parameter(torch.randn(64, 64))

    def step():
        hidden = torch.ones(8, 64)
        for _ in range(5):
            hidden = torch.tanh(hidden @ weight)
        hidden.sum().backward()

    stored = 5 * 8 * 64 * 4  # each tanh keeps its output
    assert stored < step_peak(step) < stored + 3 * 64 * 64 * 4 + 6 * 8 * 64 * 4


def test_flops_of_all_blocks_follow_from_a_few():
    config = dict(meta_transformer(TINY_TRANSFORMER | {"num_layers": 5}).config)
    pairs = Pairs(2, 4, 6, text=5)
    full = useful_flops(config, PredictUpdate(), pairs.batch(config, (), "meta", torch.float32))
    from torch.utils.flop_counter import FlopCounterMode

    transformer = meta_transformer(TINY_TRANSFORMER | {"num_layers": 5})
    method = PredictUpdate()
    method.install(transformer)
    with FlopCounterMode(display=False) as counter:
        loss_of(transformer, method, pairs.batch(transformer.config, (), "meta", torch.float32)).backward()
    assert full == counter.get_total_flops()


def test_checkpointing_needs_less():
    peaks = {}
    for checkpointing in (False, True):
        transformer = tiny_transformer(num_layers=6)
        if checkpointing:
            transformer.enable_gradient_checkpointing()
        method = PredictUpdate()
        method.install(transformer)
        peaks[checkpointing] = step_peak(lambda t=transformer, m=method: loss_of(t, m, tiny_batch()).backward())
    assert peaks[True] < 0.6 * peaks[False]


@pytest.mark.slow
def test_the_experiment_fits_the_cards_it_is_meant_for():
    sizes = dict(meta_transformer().config)
    needs = {
        (adapter, trainer, devices, moments): sum(
            estimate(sizes, PredictUpdate(adapter=adapter), Setting(trainer, devices, moments, True, STILL)).values()
        )
        / GIB
        for adapter, trainer, devices, moments in (
            ("full", "zero2", 8, 8), ("full", "single", 1, 2),
            ("full", "zero2_offload", 1, 8), ("lora", "single", 1, 8),
        )
    }  # fmt: skip
    print(needs)
    assert needs["full", "zero2", 8, 8] <= 14
    assert needs["full", "single", 1, 2] <= 23 and needs["full", "zero2_offload", 1, 8] <= 23
    assert needs["lora", "single", 1, 8] <= 8


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "trained", "card"), [(WAN_1_3B, 175e6, 24), (WAN_14B, 614e6, 80)])
def test_video_pairs_with_first_frames_fit_one_card(sizes, trained, card):
    """The paper of FreeProp trains the 14B model: 40 blocks, rank 128 on ten maps of each; 81 frames of 832x480."""
    config = dict(meta_transformer(sizes).config)
    parts = estimate(config, FreeProp(rank=128), Setting("single", 1, 8, True, Pairs(1, 60, 104, frames=21)))
    assert parts["trained weights"] == pytest.approx(4 * trained, rel=0.01)
    # What each block keeps is its input, which the backward pass starts from, in half precision.
    kept = 2 * sizes["num_layers"] * 21 * 30 * 52 * 128 * sizes["num_attention_heads"]
    assert kept < parts["activations"] < 4 * kept + 5 * GIB
    assert sum(parts.values()) / GIB < card


@pytest.mark.slow
def test_useful_products_of_a_pair_are_those_of_its_layers():
    # Multiply-adds of a block; weights of attentions are width², of the feed-forward 8960 / width times that.
    tokens, width, blocks, text = 1560, 1536, 30, 512
    linear = 2 * width * width
    frozen = tokens * linear * (4 + 2 + 2 * 8960 / width) + text * linear * 2
    adapter = tokens * linear * (6 + 6 + 2 + 4) + text * linear * 2
    attention = 4 * tokens * width
    frozen_attention = attention * (tokens + text)
    adapter_attention = attention * (2 * 2 * tokens + text)
    forward = 2 * (frozen + frozen_attention) + adapter + adapter_attention
    backward = frozen + 2 * adapter + 2 * (frozen_attention + adapter_attention)
    config = dict(meta_transformer(WAN_1_3B).config)
    found = useful_flops(config, PredictUpdate(), STILL.batch(config, (), "meta", torch.float32))
    assert found == pytest.approx(blocks * (forward + backward), rel=0.03)


def test_processes_share_a_global_batch_or_the_error_names_how_many_could():
    assert [accumulation_steps(16, 1, n) for n in (1, 2, 8, 16)] == [16, 8, 2, 1]
    with pytest.raises(UserError, match="1, 2, 4 can"):
        accumulation_steps(16, 4, 3)
    with pytest.raises(UserError, match="cannot make global_batch=6"):
        accumulation_steps(6, 4, 1)


def test_what_fits_is_named_as_options():
    sizes = dict(meta_transformer(TINY_TRANSFORMER).config)
    methods = {"lora": PredictUpdate(adapter="lora", rank=2)}
    found = fitting(sizes, methods, Pairs(1, 4, 6, text=5), 24 * GIB)
    assert len(found) == 5 and all("method.adapter=" in line and "trainer=" in line for line in found)
    assert fitting(sizes, methods, Pairs(1, 4, 6, text=5), 0.1 * GIB) == []


def test_running_out_of_memory_is_distinguished_from_other_errors():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value) and not is_out_of_memory(RuntimeError("shapes differ"))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
