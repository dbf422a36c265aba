"""MiVE: its sequence and timesteps, its context, what is dropped of the backbone, sizes, bad input."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.hooks import apply_group_offloading
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import EditBatch
from imvideoedit.editing.denoiser import Denoiser
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.flow.guidance import Guidance
from imvideoedit.methods.adapter_file import load_adapter, save_adapter
from imvideoedit.methods.adapter_header import AdapterHeader
from imvideoedit.methods.mive import Mive
from imvideoedit.training.batches import drop_texts
from imvideoedit.training.estimate import GIB, Setting, estimate
from imvideoedit.training.flops import Pairs, useful_flops
from imvideoedit.wan.backbone import Backbone, parameter_hash
from imvideoedit.wan.bases import WAN_14B, meta_transformer
from imvideoedit.wan.forward import embed, modulation, run_blocks, unembed
from imvideoedit.wan.two_levels import TwoLevels, take_one_level, take_two_levels
from tests.conftest import TINY_TRANSFORMER, awaken, tiny_batch, tiny_transformer

SIGMA = torch.tensor([0.3, 0.8])
WIDTH, TOKENS, WORDS = 8, 9, 5  # of a layer; of the context, and those of the instruction
FRAME = 6  # tokens of a latent frame of 4x6
OPTIONS = {"rank": 4, "width": WIDTH, "token": 16, "text_tokens": WORDS}


def seen_batch(batch=2, frames=3, layers=2) -> EditBatch:
    plain, generator = tiny_batch(batch, frames), torch.Generator().manual_seed(4)
    features = torch.randn(batch, TOKENS, layers * WIDTH, generator=generator)
    reference = torch.randn(batch, 4, 1, 4, 6, generator=generator)
    return replace(plain, text_BTD=features, conditions={"reference": reference})


def installed(awake=True, config=None, **options):
    transformer = tiny_transformer(**(config or {}))
    method = Mive(**OPTIONS | options)
    torch.manual_seed(0)
    method.install(transformer)
    if awake:
        awaken(method)
    return transformer, method


def watched(transformer, run):
    """Arguments and outputs of the blocks while ``run`` runs."""
    seen = []
    hooks = [
        block.register_forward_hook(lambda block, args, output: seen.append((args, output)))
        for block in transformer.blocks
    ]
    result = run()
    for hook in hooks:
        hook.remove()
    return result, seen


# The sequence.


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_the_pass_is_one_self_attention_on_context_reference_and_video(adapter):
    transformer, method = installed(awake=False, adapter=adapter)
    batch, x = seen_batch(), torch.randn(2, 4, 3, 4, 6)
    found = method.velocity(transformer, batch)(x, SIGMA)
    reference = batch.conditions["reference"]
    features = [norm(f) for norm, f in zip(method.context.norms, batch.text_BTD.split(WIDTH, -1), strict=True)]
    projected = [own(f) for own, f in zip(method.context.projections, features, strict=True)]
    context = method.context.fuse(torch.cat(projected, -1))
    assert context.shape == (2, TOKENS, 24), "as many tokens as it was given, not twice"
    video = embed(transformer, torch.cat([reference, x], 2))
    clean = TOKENS + FRAME
    sigma_BL = torch.cat([torch.zeros(2, clean), SIGMA[:, None].expand(-1, 3 * FRAME)], 1)
    time, rows, _ = modulation(transformer, 1000 * sigma_BL, context)
    cos, sin = transformer.rope(torch.zeros(2, 4, 4, 4, 6))
    still = torch.zeros_like(sin[:, :TOKENS])
    rotary = torch.cat([still + 1, cos], 1), torch.cat([still, sin], 1)
    hidden = run_blocks(transformer, torch.cat([context, video], 1), context, rows, rotary)
    wanted = unembed(transformer, hidden[:, clean:], time[:, clean:], x.shape)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_time_reaches_the_noisy_tokens_alone():
    transformer, method = installed()
    batch, x = seen_batch(), torch.randn(2, 4, 3, 4, 6)
    rows = []
    for sigma in (SIGMA, SIGMA / 2):
        _, seen = watched(transformer, lambda sigma=sigma: method.velocity(transformer, batch)(x, sigma))
        rows.append(seen[0][0][2])
    (one, count), (other, again) = rows
    assert count == again == TOKENS + FRAME and one.shape == (2, 2, 6, 24)
    assert torch.equal(one[:, 0], other[:, 0]) and (one[:, 1] - other[:, 1]).abs().max() > 1e-4
    zero = modulation(transformer, torch.zeros(2), batch.text_BTD)[1]
    torch.testing.assert_close(one[:, 0], zero)


def test_two_levels_are_diffusers_timesteps_for_each_token_bit_for_bit():
    plain, other = tiny_transformer(), tiny_transformer()
    take_two_levels(other)
    x, text = torch.randn(2, 4, 3, 4, 6), torch.randn(2, 5, 16)
    both = torch.tensor([[0.0, 300.0], [0.0, 800.0]])
    _, rows, text = modulation(plain, both, text)
    tokens, rotary = embed(plain, x), plain.rope(x)
    of_tokens = rows.repeat_interleave(torch.tensor([FRAME, 2 * FRAME]), dim=1)
    wanted = run_blocks(plain, tokens, text, of_tokens, rotary)
    assert torch.equal(run_blocks(other, tokens, text, TwoLevels(rows, FRAME), rotary), wanted)
    assert torch.equal(run_blocks(other, tokens, text, of_tokens, rotary), wanted), "theirs are taken, too"
    swapped = run_blocks(other, tokens, text, TwoLevels(rows.flip(1), FRAME), rotary)
    assert not torch.allclose(swapped, wanted)
    parts = [
        run_blocks(
            other, tokens[:, own], text, TwoLevels(rows, FRAME).of_tokens(own), tuple(table[:, own] for table in rotary)
        )
        for own in (slice(0, 4), slice(4, 10), slice(10, 18))
    ]
    alone = [
        run_blocks(plain, tokens[:, own], text, of_tokens[:, own], tuple(table[:, own] for table in rotary))
        for own in (slice(0, 4), slice(4, 10), slice(10, 18))
    ]
    assert all(torch.equal(one, two) for one, two in zip(parts, alone, strict=True)), "processes that share a pass"
    take_one_level(other)
    assert [type(block) for block in other.blocks] == [type(block) for block in plain.blocks]


def test_the_reference_is_the_frame_before_the_video_in_both_halves_at_every_step():
    transformer, method = installed()
    method.eval().requires_grad_(False)
    batch = replace(seen_batch(1), target_BCFHW=None)
    taken = {"own": [], "columns": []}
    hooks = [
        part.register_forward_pre_hook(lambda part, args, name=name: taken[name].append(args[0]))
        for name, part in (("own", transformer.patch_embedding), ("columns", method.columns))
    ]
    config = SamplingConfig(steps=3, guidance=1.0, shift=3.0)
    edited = Denoiser(transformer, method, 3.0, 4, config)(batch, seed=0)
    for hook in hooks:
        hook.remove()
    assert edited.shape == batch.source_BCFHW.shape and edited.isfinite().all()
    for name in taken:
        assert len(taken[name]) == 3
        for whole in taken[name]:
            assert whole.shape[2] == 4 and torch.equal(whole[:, :, :1], batch.conditions["reference"])
    assert torch.equal(taken["columns"][1][:, :, 1:], batch.source_BCFHW)
    assert not torch.equal(taken["own"][0], taken["own"][1])


def test_the_context_sees_the_video_and_the_video_the_context():
    transformer, method = installed()
    batch, x = seen_batch(), torch.randn(2, 4, 3, 4, 6)

    def hidden(at, features):
        edits = replace(batch, text_BTD=features)
        return watched(transformer, lambda: method.velocity(transformer, edits)(at, SIGMA))[1][0][1]

    plain = hidden(x, batch.text_BTD)
    moved = hidden(x + 1, batch.text_BTD)
    assert (plain[:, :TOKENS] - moved[:, :TOKENS]).abs().amax((0, 2)).min() > 1e-5
    told = hidden(x, batch.text_BTD + 1)
    assert (plain[:, TOKENS:] - told[:, TOKENS:]).abs().amax((0, 2)).min() > 1e-5


def test_with_cross_attention_the_context_does_not_see_the_video():
    transformer, method = installed(conditioning="cross")
    x = torch.randn(2, 4, 3, 4, 6)
    _, seen = watched(transformer, lambda: method.velocity(transformer, seen_batch())(x, SIGMA))
    assert [args[0].shape[1] for args, _ in seen] == [4 * FRAME] * 2
    assert torch.equal(seen[0][0][1], seen[1][0][1]) and seen[0][0][1].shape == (2, TOKENS, 24)


def test_training_begins_with_the_base_models_embedding_and_no_source():
    transformer, method = installed(awake=False, adapter="lora")
    assert method.columns.weight.shape[1] == 4 and method.columns.weight.abs().max() == 0
    batch, x = seen_batch(), torch.randn(2, 4, 3, 4, 6)
    other = replace(batch, source_BCFHW=batch.source_BCFHW + 1)
    velocities = [method.velocity(transformer, each)(x, SIGMA) for each in (batch, other)]
    assert torch.equal(*velocities)
    awaken(method.columns)
    assert not torch.equal(velocities[0], method.velocity(transformer, other)(x, SIGMA))


def test_the_loss_is_of_the_videos_own_frames():
    transformer, method = installed()
    batch = seen_batch()
    point, sigma_B, weights = method.training_point(batch, torch.Generator().manual_seed(0))
    assert point.x_BCFHW.shape == batch.target_BCFHW.shape
    losses = method.losses_at(transformer, batch, point, sigma_B, weights)
    predicted = method.velocity(transformer, batch)(point.x_BCFHW, sigma_B)
    assert predicted.shape == batch.target_BCFHW.shape
    wanted = (predicted - point.velocity_BCFHW).square().flatten(1).mean(1)
    torch.testing.assert_close(losses["flow_matching"], wanted)
    changed = replace(batch, conditions={"reference": batch.conditions["reference"] + 5})
    again = method.training_point(changed, torch.Generator().manual_seed(0))[0]
    assert torch.equal(again.velocity_BCFHW, point.velocity_BCFHW), "the reference is no frame to predict"


# What is read.


@pytest.mark.parametrize("layers", ["first", "last", "both"])
def test_each_layer_has_a_branch_and_gradients_reach_those_that_are_read(layers):
    count = 2 if layers == "both" else 1
    transformer, method = installed(layers=layers)
    assert len(method.context.norms) == len(method.context.projections) == count
    batch = seen_batch(layers=count)
    batch.text_BTD.requires_grad_()
    losses = method.losses(transformer, batch, torch.Generator().manual_seed(0))
    losses["flow_matching"].mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.context.parameters())
    assert all(part.abs().max() > 0 for part in batch.text_BTD.grad.split(WIDTH, -1))


def test_without_the_instruction_what_was_seen_stays():
    transformer, method = installed()
    batch = seen_batch()
    labelled = method.labelled(batch)
    assert labelled.empty_TD.shape == batch.text_BTD.shape
    assert torch.equal(labelled.empty_TD[:, :-WORDS], batch.text_BTD[:, :-WORDS])
    assert labelled.empty_TD[:, -WORDS:].abs().max() == 0
    dropped = drop_texts(labelled, 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(dropped.text_BTD, labelled.empty_TD)
    kept = drop_texts(labelled, 0.0, torch.Generator().manual_seed(0))
    assert torch.equal(kept.text_BTD, batch.text_BTD)
    x = torch.randn(2, 4, 3, 4, 6)
    named = method.branches(transformer, batch, None)
    assert named.keys() == {"edit", "without_text"}
    v = {name: own(x, SIGMA) for name, own in named.items()}
    assert torch.equal(v["without_text"], method.velocity(transformer, dropped)(x, SIGMA))
    guided = method.guide(v.__getitem__, Guidance(text=5.0))
    torch.testing.assert_close(guided, v["edit"] + 4 * (v["edit"] - v["without_text"]))


def test_guidance_by_the_source_is_refused_in_one_line():
    transformer, method = installed()
    config = SamplingConfig(steps=2, guidance=1.0, source_guidance=2.0)
    with pytest.raises(UserError, match="no guidance by the source; leave it at 1"):
        Denoiser(transformer, method, 3.0, 4, config)(seen_batch(1), 0)


def test_windows_share_context_and_reference():
    transformer, method = installed()
    method.eval().requires_grad_(False)
    batch = replace(seen_batch(1, frames=5), target_BCFHW=None)
    config = SamplingConfig(steps=2, guidance=3.0, shift=3.0, max_frames=9, overlap=4)
    assert Denoiser(transformer, method, 3.0, 4, config)(batch, seed=0).shape == batch.source_BCFHW.shape
    cut = method.window(batch, slice(2, 5), 4)
    assert torch.equal(cut.text_BTD, batch.text_BTD)
    assert torch.equal(cut.conditions["reference"], batch.conditions["reference"])


def test_caches_and_offloading_know_its_blocks():
    transformer, method = installed()
    method.eval().requires_grad_(False)
    batch, edits = replace(seen_batch(1), target_BCFHW=None), []
    for cache in (0.0, 1e-9, 10.0):
        config = SamplingConfig(steps=4, guidance=3.0, shift=3.0, cache=cache)
        edits.append(Denoiser(transformer, method, 3.0, 4, config)(batch, seed=0))
    torch.testing.assert_close(edits[1], edits[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(edits[2], edits[0]), "blocks were left out"
    apply_group_offloading(transformer, torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1)
    config = SamplingConfig(steps=4, guidance=3.0, shift=3.0)
    assert torch.equal(Denoiser(transformer, method, 3.0, 4, config)(batch, seed=0), edits[0])


# What is dropped, trained and saved.


def test_no_cross_attention_and_no_text_embedder_are_left_and_both_come_back():
    for options, gone in (({}, ("attn2", "norm2", "text_embedder")), ({"conditioning": "cross"}, ("text_embedder",))):
        transformer, method = installed(adapter="lora", **options)
        left = {part for name, _ in transformer.named_parameters() for part in name.split(".")}
        assert left & {"attn2", "norm2", "text_embedder"} == {"attn2", "norm2", "text_embedder"} - set(gone)
        method.uninstall()
        assert parameter_hash(transformer) == parameter_hash(tiny_transformer())


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_an_adapter_loads_into_the_backbone_that_it_was_made_of_alone(tmp_path, adapter):
    before = parameter_hash(tiny_transformer())
    transformer, method = installed(adapter=adapter)
    backbone = Backbone("tiny", "r1", transformer, None, None, None, 5.0)
    with pytest.raises(ValueError, match="what it was before"):
        AdapterHeader.describe(method, backbone, {})
    file = tmp_path / "a.safetensors"
    save_adapter(method, file, AdapterHeader.describe(method, backbone, {"sampler": {}}, before))
    batch, x = seen_batch(), torch.randn(2, 4, 3, 4, 6)
    expected = method.velocity(transformer, batch)(x, SIGMA)
    again = tiny_transformer()
    loaded = load_adapter(file, again)
    assert torch.equal(loaded.velocity(again, batch)(x, SIGMA), expected)
    held = {name for name in loaded.state_dict() if name.startswith("backbone.")}
    assert bool(held) == (adapter == "full") and not any("attn2" in name or "text_embedder" in name for name in held)
    with pytest.raises(UserError, match="load the backbone it was trained in"):
        load_adapter(file, tiny_transformer(seed=1))


def test_of_14_billion_weights_4_are_dropped():
    transformer = meta_transformer(WAN_14B)
    whole = sum(p.numel() for p in transformer.parameters())
    cross = sum(p.numel() for b in transformer.blocks for part in (b.attn2, b.norm2) for p in part.parameters())
    text = sum(p.numel() for p in transformer.condition_embedder.text_embedder.parameters())
    method = Mive()
    method.install(transformer)
    left = sum(p.numel() for p in transformer.parameters())
    assert whole - left == cross + text and abs((cross + text) / 1e9 - 4.2) < 0.1
    adapter = 2 * (4096 + 4096 * 5120 + 5120) + 2 * 5120 * 5120 + 5120
    columns = 5120 * 16 * 2 * 2
    assert sum(p.numel() for p in method.parameters()) == left + adapter + columns
    assert not any(p.numel() for p in transformer.parameters() if not p.requires_grad)


def experiment(name, *overrides):
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base=None):
        return compose("train", [f"+experiment={name}", *overrides])


def test_the_papers_setting_is_planned_for_eight_gpus(monkeypatch):
    monkeypatch.setattr("imvideoedit.training.estimate.activation_bytes", lambda *args: 0)
    config = experiment("mive")
    method = instantiate(config.method)
    assert method.options.vlm.startswith("Qwen/Qwen3-VL-8B") and method.trains_backbone
    pairs = Pairs(1, 90, 160, frames=21)
    batch = pairs.batch_of(WAN_14B | {"out_channels": 16, "text_dim": 4096}, method, "meta", torch.bfloat16)
    seen = batch.text_BTD.shape
    assert seen[0] == 1 and seen[2] == 2 * 4096 and 1000 < seen[1] < 1600
    parts = estimate(dict(meta_transformer(WAN_14B).config), method, Setting("zero2", 8, 8, True, pairs))
    trained = 10.2e9
    assert parts["frozen weights"] == 0 and abs(parts["trained weights"] / (2 * trained) - 1) < 0.02
    states = sum(size for name, size in parts.items() if name != "activations")
    assert 40 * GIB < states < 50 * GIB


def test_costs_of_a_small_one_are_counted():
    config, pairs = TINY_TRANSFORMER | {"num_layers": 4}, Pairs(1, 4, 6, frames=3)
    method = Mive(**OPTIONS | {"pixels": 1024})
    batch = pairs.batch_of(config, method, "cpu", torch.float32)
    assert batch.text_BTD.shape[2] == 2 * WIDTH
    assert useful_flops(config, method, batch) > 0
    parts = estimate(config, method, Setting("single", 1, 8, True, pairs))
    assert parts["activations"] > 0


# Bad input.


@pytest.mark.parametrize(
    "wrong",
    [
        {"adapter": "half"},
        {"layers": "second"},
        {"conditioning": "none"},
        {"rank": 0},
        {"text_tokens": 0},
        {"pixels": 100},
    ],
    ids=json.dumps,
)
def test_options_out_of_their_range_are_refused(wrong):
    with pytest.raises(UserError, match=f"method.{next(iter(wrong))} is"):
        Mive(**wrong)


def test_a_backbone_with_other_channels_is_refused():
    with pytest.raises(UserError, match="this one has 8; give another backbone"):
        Mive(**OPTIONS).install(tiny_transformer(in_channels=8))
