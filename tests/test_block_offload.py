"""Blocks that are on the device one by one: the same training to the bit, two blocks at a time, counted bytes."""

import contextlib
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from imvideoedit.benchmark.cards import Card
from imvideoedit.benchmark.launches import Count
from imvideoedit.benchmark.whole_model import Step, step_count
from imvideoedit.edit_batch import EditBatch
from imvideoedit.methods.lora_edit import LoraEdit
from imvideoedit.training.block_offload import HOST, BlockOffload, offloaded
from imvideoedit.training.estimate import GIB, Setting, estimate, host_bytes
from imvideoedit.training.flops import (
    META,
    Pairs,
    activation_bytes,
    loss_of,
    make_fake,
    random_transformer,
    step_peak,
)
from imvideoedit.wan.bases import WAN_1_3B_I2V, WAN_14B_I2V, meta_transformer
from tests.conftest import TINY_TRANSFORMER, awaken, tiny_transformer

BLOCKS = 4
CONFIG = TINY_TRANSFORMER | {"in_channels": 12, "num_layers": BLOCKS}
CLIP = Pairs(1, 4, 6, text=5, frames=3)
TOKENS = 3 * 2 * 3
# Where blocks, and not the masks' pixels, need most.
WIDE = CONFIG | {"num_attention_heads": 16, "attention_head_dim": 64, "ffn_dim": 4096}
LARGE = Pairs(1, 32, 32, text=5, frames=5)
LARGE_INPUT = 2 * 5 * 16 * 16 * 16 * 64  # bytes


def clip_batch(seed: int) -> EditBatch:
    generator = torch.Generator().manual_seed(seed)
    source, target, masked = torch.randn(3, 1, 4, 3, 4, 6, generator=generator)
    conditions = {"mask": torch.ones(1, 1, 9, 32, 48), "masked_video": masked, "first_frame": masked[:, :, :1]}
    return EditBatch(source, target, torch.randn(1, 5, 16, generator=generator), conditions)


def trained(offload: bool, mixed: bool = False, watch=lambda transformer, offload: None) -> dict[str, torch.Tensor]:
    """Deltas after three steps, in the first of which gradients of two batches add up."""
    transformer = tiny_transformer(in_channels=12, num_layers=BLOCKS)
    torch.manual_seed(0)
    method = LoraEdit(rank=4)
    method.install(transformer)
    awaken(method)
    before = {name: each.clone() for name, each in transformer.state_dict().items()}
    transformer.enable_gradient_checkpointing()
    optimizer = torch.optim.AdamW(method.parameters(), 1e-2)
    with offloaded(transformer, HOST) if offload else contextlib.nullcontext() as blocks:
        watch(transformer, blocks)
        for seeds in ((0, 1), (2,), (3,)):
            for seed in seeds:
                with torch.autocast("cpu", torch.bfloat16, mixed):
                    loss = method.losses(transformer, clip_batch(seed), torch.Generator().manual_seed(seed))
                loss["flow_matching"].mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert all(torch.equal(before[name], each) for name, each in transformer.state_dict().items())
    return {name: each.detach().clone() for name, each in method.named_parameters()}


@pytest.mark.parametrize("mixed", [False, True])
def test_offloaded_blocks_train_the_same_deltas_to_the_bit(mixed):
    plain, moved = trained(False, mixed), trained(True, mixed)
    assert plain.keys() == moved.keys() and all(torch.equal(plain[name], moved[name]) for name in plain)
    assert any(name.startswith("lora.0") and moved[name].any() for name in moved)


def held(block: nn.Module) -> bool:
    return all(each.numel() for each in block.parameters())


def test_a_block_is_there_in_its_turns_with_the_next_one_and_no_other():
    seen: list[tuple[int, set[int]]] = []

    def watch(transformer, offload):
        for place, block in enumerate(transformer.blocks):
            block.register_forward_pre_hook(lambda *_, place=place: look(place))

        def look(place: int) -> None:
            there = {number for number, block in enumerate(transformer.blocks) if held(block)}
            assert there == offload.resident
            seen.append((place, there))

        assert not any(map(held, transformer.blocks)), "before the first pass none is there"

    trained(True, watch=watch)
    forward = [(0, {0, 1}), (1, {1, 2}), (2, {2, 3}), (3, {3})]
    backward = [(3, {2, 3}), (2, {1, 2}), (1, {0, 1}), (0, {0})]
    assert seen == (forward + backward) * 4  # batches


def test_inputs_leave_the_device_and_a_lost_gradient_is_refused():
    transformer = tiny_transformer(in_channels=12, num_layers=BLOCKS)
    method = LoraEdit(rank=4)
    method.install(transformer)
    with offloaded(transformer, HOST) as offload:
        loss = method.losses(transformer, clip_batch(0), torch.Generator().manual_seed(0))["flow_matching"].mean()
        waiting, inputs = offload._last, []
        while waiting is not None:
            inputs.append(waiting.host_BLD)
            waiting = waiting.before
        assert [tuple(each.shape) for each in inputs] == [(1, TOKENS, 24)] * BLOCKS
        loss.backward()
        assert offload._last.host_BLD is None and offload._last.before is None  # nothing outlives the step
        text = torch.zeros(1, 5, 24, requires_grad=True)
        with pytest.raises(ValueError, match="only the tokens"):
            offload.run(transformer.blocks[0], torch.zeros(1, TOKENS, 24), text)


@pytest.mark.slow
def test_a_step_moves_each_block_twice_and_its_input_twice():
    transformer = meta_transformer(CONFIG)
    block = 2 * sum(each.numel() for each in transformer.blocks[0].parameters())
    count = step_count(LoraEdit(rank=4), CLIP, Step(CONFIG, offload=True))
    # The last block is there as the backward pass begins, and the first one as the next step does.
    assert count.moved == 2 * (BLOCKS - 1) * block + 2 * BLOCKS * 2 * TOKENS * 24
    assert step_count(LoraEdit(rank=4), CLIP, Step(CONFIG)).moved == 0
    slow = Card("x", bandwidth=1e12, rate=1e14, link=1e10)
    assert slow.seconds(Count(moved=1e10)) == pytest.approx(1 / 0.8)
    assert slow.seconds(replace(Count(moved=1e10), bytes=1e13)) > 10  # copies run beside the computation


@pytest.mark.slow
def test_the_estimate_is_of_two_blocks_and_one_blocks_activations():
    method, config = LoraEdit(rank=4), dict(meta_transformer(WIDE).config)
    deep = {**config, "num_layers": 3 * BLOCKS}
    setting = Setting("single", 1, 2, True, LARGE, offload=True)
    parts, of_deep = estimate(config, method, setting), estimate(deep, method, setting)
    transformer = meta_transformer(WIDE)
    whole = sum(each.numel() for each in transformer.parameters())
    block = sum(each.numel() for each in transformer.blocks[0].parameters())
    assert parts["frozen weights"] == of_deep["frozen weights"] == 2 * (whole - (BLOCKS - 2) * block)
    assert parts["activations"] == of_deep["activations"] > 0
    kept = LARGE_INPUT
    all_there = {n: activation_bytes({**config, "num_layers": n}, method, LARGE, True, torch.float32) for n in (1, 9)}
    assert all_there[9] - all_there[1] >= 8 * kept
    assert all_there[1] <= parts["activations"] <= all_there[1] + 5 * kept
    assert host_bytes(config, LARGE) == BLOCKS * (2 * block + kept)
    assert peak_of(BLOCKS) == peak_of(2 * BLOCKS) == parts["activations"] + 2 * 2 * block  # of any depth


def peak_of(blocks: int) -> int:
    """Bytes that an offloaded step of so many blocks allocates on the device, counted."""
    with torch.device("meta"):
        transformer = random_transformer({**WIDE, "num_layers": blocks}, torch.bfloat16)
    method = LoraEdit(rank=4)
    method.install(transformer)
    with FakeTensorMode():
        make_fake(nn.ModuleList([transformer, method]))
        batch = LARGE.batch_of(transformer.config, method, "cpu", torch.bfloat16)
        transformer.enable_gradient_checkpointing(BlockOffload(transformer, HOST, META).run)

        def step() -> None:
            with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
                loss = loss_of(transformer, method, batch)
            loss.backward()

        return step_peak(step)


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "most"), [(WAN_1_3B_I2V, 12), (WAN_14B_I2V, 20)])
def test_49_frames_at_480x832_fit_small_cards(sizes, most):
    config = dict(meta_transformer(sizes).config)
    clip = Pairs(1, 60, 104, frames=13)
    parts = estimate(config, LoraEdit(), Setting("single", 1, 2, True, clip, offload=True))
    print({name: round(size / GIB, 2) for name, size in parts.items()}, host_bytes(config, clip) / GIB)
    assert sum(parts.values()) <= most * GIB


def test_weights_wait_on_the_host_and_come_back(transformer):
    before = {name: each.clone() for name, each in transformer.requires_grad_(False).state_dict().items()}
    offload = BlockOffload(transformer, HOST)
    assert not any(map(held, transformer.blocks)) and offload.resident == set()
    transformer.to(torch.float32)  # as a trainer places a module: there is nothing to move
    offload.restore()
    assert all(torch.equal(before[name], each) for name, each in transformer.state_dict().items())
