"""FreeProp: positions, heads, losses and inputs by hand-made cases."""

import json
import re
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imvideoedit.common.errors import UserError
from imvideoedit.layers.position_scales import PositionScales
from imvideoedit.layers.rope import apply_rotary
from imvideoedit.layers.time_positions import for_heads, time_tables
from imvideoedit.methods.adapter_file import load_adapter, save_adapter
from imvideoedit.methods.adapter_header import AdapterHeader
from imvideoedit.methods.ast_rope import positions
from imvideoedit.methods.block_lora import MethodRotary
from imvideoedit.methods.freeprop import SCALES, FreeProp
from imvideoedit.methods.freeprop_heads import densities, is_temporal, main
from imvideoedit.methods.freeprop_losses import consistency_loss, drift, motion_loss, pooled
from imvideoedit.methods.head_masks import read_head_masks, write_head_masks
from imvideoedit.training.flops import Pairs, useful_flops
from imvideoedit.wan.backbone import Backbone, load_backbone, parameter_hash
from imvideoedit.wan.forward import denoise, tapped
from tests.conftest import TINY_TRANSFORMER, awaken, tiny_batch, tiny_transformer

HEADS = [[1, 0], [0, 1]]
SIGMA = torch.tensor([0.3, 0.8])


def first_frame_batch(frames=3, seed=1):
    plain = tiny_batch(2, frames, 4, 6, seed)
    first = torch.randn(2, 4, 1, 4, 6, generator=torch.Generator().manual_seed(seed + 1))
    return replace(plain, conditions={"first_frame": first})


def installed(awake=True, config=None, **options):
    transformer = tiny_transformer(**(config or {}))
    method = FreeProp(**{"rank": 4, "width": 16, "heads": HEADS} | options)
    torch.manual_seed(0)
    method.install(transformer)
    if awake:
        awaken(method)
    return transformer, method


# (1) The identity, bit for bit, and a shift of all positions.


def test_positions_of_zero_and_one_are_the_stock_tables_bit_for_bit():
    rope = tiny_transformer().rope
    x = torch.randn(1, 4, 5, 8, 12)
    spatial, temporal = positions(torch.tensor([[0.0, 1.0]]), 5)
    for chosen in (spatial, temporal):
        for own, stock in zip(time_tables(rope, chosen, 4, 6), rope(x), strict=True):
            assert torch.equal(own, stock)


def test_an_awake_method_at_the_identity_equals_the_one_without_ast_rope():
    batch = first_frame_batch()
    plain, without = installed(heads=None)
    adapted, method = installed(awake=False)
    own = without.state_dict()
    method.load_state_dict({name: own.get(name, value) for name, value in method.state_dict().items()})
    # New scales give (0, 1).
    assert torch.equal(method.position_scales(batch.source_BCFHW), torch.tensor([[0.0, 1.0]] * 2))
    x = torch.randn(2, 4, 3, 4, 6)
    assert torch.equal(method.velocity(adapted, batch)(x, SIGMA), without.velocity(plain, batch)(x, SIGMA))


def test_attention_knows_distances_alone():
    torch.manual_seed(0)
    transformer = tiny_transformer()
    q, k = torch.randn(2, 1, 15, 2, 12)
    scores = []
    for shift in (0.0, 7.5):
        cos, sin = time_tables(transformer.rope, torch.arange(5.0)[None].double() + shift, 1, 3)
        scores.append(torch.einsum("blne,bmne->bnlm", apply_rotary(q, cos, sin), apply_rotary(k, cos, sin)))
    assert (scores[0] - scores[1]).abs().max() < 1e-5


# (2) Heads by a hand-made mask.


def test_only_temporal_heads_scale_and_only_the_first_frame_of_spatial_heads_moves():
    rope = tiny_transformer().rope
    spatial, temporal = positions(torch.tensor([[0.5, 2.0], [-0.25, 0.5]], dtype=torch.float64), 4)
    assert spatial.tolist() == [[2.0, 1, 2, 3], [-1.0, 1, 2, 3]]
    assert temporal.tolist() == [[0.0, 2, 4, 6], [0.0, 0.5, 1, 1.5]]
    stock = [table.unflatten(1, (4, 6)) for table in rope(torch.zeros(1, 4, 4, 4, 6))]
    tables = for_heads(torch.tensor([True, False]), time_tables(rope, temporal, 2, 3), time_tables(rope, spatial, 2, 3))
    for own, plain in zip(tables, stock, strict=True):
        own = own.unflatten(1, (4, 6))
        assert torch.equal(own[..., rope.t_dim :], plain[..., rope.t_dim :].expand_as(own[..., rope.t_dim :]))
        assert torch.equal(own[:, 1:, :, 1], plain[:, 1:, :, 0].expand_as(own[:, 1:, :, 1]))
        assert not torch.equal(own[:, 0, :, 1], plain[:, 0, :, 0].expand_as(own[:, 0, :, 1]))
        assert torch.equal(own[0, 1, :, 0], plain[0, 2, :, 0]) and torch.equal(own[1, 2, :, 0], plain[0, 1, :, 0])


def test_each_block_gives_its_heads_their_own_tables():
    transformer, method = installed()
    with torch.no_grad():
        method.scales.space[-1].bias.fill_(0.3)
        method.scales.time[-1].bias.fill_(0.5)
    seen = []
    for block in transformer.blocks:
        block.attn1.register_forward_pre_hook(lambda attention, args: seen.append(args[3]))
    method.velocity(transformer, first_frame_batch())(torch.randn(2, 4, 3, 4, 6), SIGMA)
    (one, _), (two, _) = seen
    assert one.shape == (2, 18, 2, 12) and not torch.equal(one[:, :, 0], one[:, :, 1])
    assert torch.equal(one, two.flip(2)), "the second block's mask is the first's the other way round"


# (3) Gradients into the coefficients.


def test_flow_matching_moves_the_coefficients_once_the_deltas_are_not_zero():
    transformer, method = installed(motion=0.0, consistency=0.0)
    method.losses(transformer, first_frame_batch(), torch.Generator().manual_seed(0))["flow_matching"].sum().backward()
    assert all(head[-1].weight.grad.abs().sum() > 0 for head in (method.scales.space, method.scales.time))


def test_the_coefficients_stay_in_their_ranges_and_see_motion():
    torch.manual_seed(0)
    network = PositionScales(4, 16)
    still = torch.randn(1, 4, 1, 8, 8).expand(1, 4, 5, 8, 8)
    moving = torch.stack([still[:, :, 0].roll(2 * frame, -1) for frame in range(5)], 2)
    assert torch.equal(network(still), network(moving))  # zero at the start
    awaken(network, seed=3)
    assert not torch.allclose(network(still), network(moving))
    for head in (network.space, network.time):
        torch.nn.init.constant_(head[-1].bias, 99.0)
    alpha_s, alpha_t = network(moving)[0].tolist()
    assert alpha_t == pytest.approx(4.0) and alpha_s <= 1


# (4) The two losses.


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 4), st.integers(2, 5))
def test_drift_is_a_discrepancy(seed, frames, tokens):
    generator = torch.Generator().manual_seed(seed)
    z = torch.nn.functional.normalize(torch.randn(2, frames, tokens, 6, generator=generator), dim=-1)
    bandwidth = torch.tensor([0.5, 2.0])
    d = drift(z, bandwidth)
    assert (d > -1e-5).all() and d[:, 0].abs().max() < 1e-6
    # Rows of the first frame's tokens in another order, columns as they were: the same sets of rows.
    same = z.clone()
    same[:, 1:] = z[:, :1]
    assert drift(same, bandwidth).abs().max() < 1e-6
    assert motion_loss(z, z).max() == 0 and consistency_loss(z, z).max() == 0
    other = torch.nn.functional.normalize(torch.randn(z.shape, generator=generator), dim=-1)
    assert (motion_loss(z, other) > 0).all() and (consistency_loss(z, other) >= 0).all()


def test_the_motion_loss_is_its_formula_and_ignores_a_frames_own_block():
    z, other = torch.randn(2, 1, 3, 2, 5).double().unbind(0)
    gram = [x.flatten(1, 2)[0] @ x.flatten(1, 2)[0].T for x in (z, other)]
    apart = (gram[0] - gram[1]).abs().unflatten(0, (3, 2)).unflatten(2, (3, 2)).mean((1, 3))
    wanted = sum(apart[i, j] for i in range(3) for j in range(3) if i != j) / 6
    assert torch.allclose(motion_loss(z, other), wanted[None])
    # Vectors of a plane that only the first frame has: changed within it, its own block alone changes.
    z = torch.zeros(1, 2, 2, 4)
    z[0, 0, :, :2], z[0, 1, :, 2:] = torch.eye(2), torch.eye(2)
    turned = z.clone()
    turned[0, 0, 1, :2] = torch.tensor([1.0, 0.0])
    assert motion_loss(z, turned).item() == 0


def test_drift_and_its_loss_are_their_formulas():
    generator = torch.Generator().manual_seed(0)
    z, other = (
        torch.nn.functional.normalize(torch.randn(1, 3, 4, 5, generator=generator, dtype=torch.float64), dim=-1)
        for _ in range(2)
    )

    def rows(x, frame):
        return x[0, 0] @ x[0, frame].T

    distances = torch.cat([torch.cdist(rows(other, 0), rows(other, i)).square().flatten() for i in range(3)])
    width = distances.median()

    def kernel(one, two):
        return sum((-(a - b).square().sum() / width).exp() for a in one for b in two) / len(one) / len(two)

    def by_hand(x, frame):
        first, own = rows(x, 0), rows(x, frame)
        return kernel(first, first) + kernel(own, own) - 2 * kernel(first, own)

    assert torch.allclose(drift(z, width[None])[0], torch.stack([by_hand(z, frame) for frame in range(3)]), atol=1e-9)
    wanted = sum((by_hand(z, frame) - by_hand(other, frame)).abs() for frame in (1, 2))
    assert torch.allclose(consistency_loss(z, other)[0], wanted, atol=1e-9)


def test_the_motion_loss_does_not_depend_on_how_many_frames_are_taken_at_a_time(monkeypatch):
    z, other = torch.randn(2, 2, 5, 3, 4).unbind(0)
    at_once = motion_loss(z, other)
    monkeypatch.setattr("imvideoedit.methods.freeprop_losses.PRODUCTS", 2 * 5 * 3 * 3)
    assert torch.allclose(motion_loss(z, other), at_once, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"heads": None}, {"motion": 0.0, "consistency": 0.0}])
def test_all_losses_compile_as_one_graph(options):
    transformer, method = installed(**options)
    batch = first_frame_batch()
    point = method.training_point(batch, torch.Generator().manual_seed(0))
    compiled = torch.compile(method.losses_at, fullgraph=True, backend="eager")
    for name, loss in compiled(transformer, batch, *point).items():
        assert torch.allclose(loss, method.losses_at(transformer, batch, *point)[name], atol=1e-6), name


def test_both_losses_vanish_where_nothing_is_edited():
    transformer, method = installed()
    batch = first_frame_batch()
    losses = method.losses(transformer, replace(batch, source_BCFHW=batch.target_BCFHW), torch.Generator())
    assert losses["motion"].abs().max() == 0 and losses["consistency"].abs().max() == 0
    assert losses.keys() == {"flow_matching", "motion", "consistency"}


# (5) The teacher.


def test_no_gradient_flows_through_the_teacher():
    transformer, method = installed()
    batch, generator = first_frame_batch(), torch.Generator().manual_seed(0)
    losses = method.losses(transformer, batch, generator)
    (losses["motion"] + losses["consistency"]).mean().backward()
    got = {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
    method.zero_grad()
    noise = torch.Generator().manual_seed(0)
    sigma_B = method.objective.sample_sigma(2, noise, "cpu")
    point = method.objective.path(batch.target_BCFHW, torch.randn(batch.target_BCFHW.shape, generator=noise), sigma_B)

    def features(edits):
        with tapped(transformer, [1]) as outputs:
            method.velocity(transformer, edits)(point.x_BCFHW, sigma_B)
        return pooled(outputs[1], (3, 2, 3))

    student, teacher = features(batch), features(replace(batch, source_BCFHW=batch.target_BCFHW)).detach()
    (5 * motion_loss(student, teacher) + consistency_loss(student, teacher)).mean().backward()
    for name, p in method.named_parameters():
        assert (name in got) == (p.grad is not None) and (
            name not in got or torch.allclose(got[name], p.grad, atol=1e-6)
        )


# Inputs, bases, heads of others.


def test_new_channels_start_at_zero_on_both_bases():
    batch = first_frame_batch()
    x = torch.randn(2, 4, 3, 4, 6)
    transformer, method = installed(awake=False)
    assert torch.equal(method.velocity(transformer, batch)(x, SIGMA), denoise(transformer, x, SIGMA, batch.text_BTD))
    assert method.columns.weight.shape[1] == 9
    controlled, own = installed(awake=False, config={"in_channels": 12})
    first = torch.nn.functional.pad(batch.conditions["first_frame"], (0, 0, 0, 0, 0, 2))
    given = torch.cat([x, batch.source_BCFHW, first], 1)
    wanted = controlled(given, 1000 * SIGMA, batch.text_BTD, return_dict=False)[0]
    assert torch.equal(own.velocity(controlled, batch)(x, SIGMA), wanted) and own.columns.weight.shape[1] == 1


@pytest.mark.parametrize("part", ["source", "first_frame"])
def test_what_is_given_is_used(part):
    transformer, method = installed()
    batch = first_frame_batch()
    other = first_frame_batch(seed=5)
    changed = (
        replace(batch, source_BCFHW=other.source_BCFHW)
        if part == "source"
        else replace(batch, conditions=other.conditions)
    )
    x = torch.randn(2, 4, 3, 4, 6)
    assert not torch.allclose(
        method.velocity(transformer, batch)(x, SIGMA), method.velocity(transformer, changed)(x, SIGMA)
    )


def test_a_window_has_the_first_frame_and_the_whole_videos_coefficients():
    _, method = installed()
    batch = first_frame_batch(frames=5)
    window = method.window(batch, slice(2, 5), 4)
    assert window.source_BCFHW.shape[2] == 3
    assert torch.equal(window.conditions["first_frame"], batch.conditions["first_frame"])
    assert torch.equal(window.conditions[SCALES], method.position_scales(batch.source_BCFHW))
    assert not torch.equal(window.conditions[SCALES], method.position_scales(window.source_BCFHW))
    assert torch.equal(method.condition(method.transformer, window), window.conditions[SCALES])


def test_a_plain_pass_is_the_frozen_model_and_uninstalling_leaves_no_hook():
    transformer, method = installed()
    plain = tiny_transformer()
    batch = first_frame_batch()
    x = batch.target_BCFHW
    assert torch.equal(denoise(transformer, x, SIGMA, batch.text_BTD), denoise(plain, x, SIGMA, batch.text_BTD))
    method.uninstall()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in transformer.modules())


def test_deltas_work_again_in_a_checkpointed_block_after_a_pass_that_failed():
    transformer, method = installed()
    lora = method.lora[0]
    with pytest.raises(RuntimeError):
        transformer.blocks[0](*[torch.zeros(1, 3, 5)] * 3, MethodRotary.of((torch.zeros(1), torch.zeros(1))))
    assert not lora.at_work


def test_head_masks_of_another_backbone_or_shape_are_refused(tmp_path):
    transformer = tiny_transformer()
    file = tmp_path / "heads.json"
    write_head_masks(file, HEADS, parameter_hash(transformer), epsilon=1e-6)
    assert read_head_masks(file).temporal == ((1, 0), (0, 1))
    FreeProp(rank=4, width=16, heads=str(file)).install(transformer)
    with pytest.raises(UserError, match="heads of another backbone"):
        FreeProp(rank=4, width=16, heads=str(file)).install(tiny_transformer(seed=1))
    with pytest.raises(UserError, match="3 blocks of 2 heads; this backbone has 2 of 2"):
        FreeProp(rank=4, width=16, heads=[[1, 0]] * 3).install(tiny_transformer())
    for wrong in ([[2, 0], [0, 1]], [], "x", 3, [[True, False]]):
        with pytest.raises(UserError, match="0 and 1|cannot be read"):
            FreeProp(heads=wrong)
    file.write_text(json.dumps({"temporal": HEADS}))
    with pytest.raises(UserError, match="of which backbone"):
        FreeProp(heads=str(file))


def test_a_base_without_the_channels_is_refused():
    with pytest.raises(UserError, match="this one has 9; give another backbone"):
        FreeProp(rank=4, heads=None).install(tiny_transformer(in_channels=9))


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"width": 12}, {"motion": -1.0}, {"block": 2}])
def test_options_out_of_their_range_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        partial(FreeProp, **{"rank": 4, "width": 16} | wrong)().install(tiny_transformer())


def test_a_saved_adapter_carries_its_heads(tmp_path):
    transformer, method = installed()
    batch, x = first_frame_batch(), torch.randn(2, 4, 3, 4, 6)
    expected = method.velocity(transformer, batch)(x, SIGMA)
    backbone = Backbone("tiny", "r1", transformer, None, None, None, 5.0)
    save_adapter(method, tmp_path / "a.safetensors", AdapterHeader.describe(method, backbone, {"sampler": {}}))
    again = tiny_transformer()
    loaded = load_adapter(tmp_path / "a.safetensors", again)
    assert loaded.config() == method.config() and loaded.heads.temporal == ((1, 0), (0, 1))
    # Without gradients torch takes another kernel for the layers that predict the coefficients.
    assert torch.allclose(loaded.velocity(again, batch)(x, SIGMA), expected, atol=1e-5)


# (6) The classifier of heads.


def test_heads_within_frames_are_spatial_and_heads_across_them_temporal():
    frames, tokens = 3, 4
    place = torch.eye(frames * tokens)[:, : frames * tokens]
    frame = torch.eye(frames).repeat_interleave(tokens, 0)
    column = torch.eye(tokens).repeat(frames, 1)

    def rho(query, key):
        pad = torch.nn.functional.pad
        return densities(*(pad(60 * x, (0, 12 - x.shape[1]))[None, :, None] for x in (query, key)), frames, 1e-6)

    within, across = rho(frame, frame), rho(column, column)
    assert torch.equal(within[0], torch.eye(frames)) and not is_temporal(within)
    assert torch.allclose(across[0], torch.full((frames, frames), 1 / tokens)) and not is_temporal(across), "a tie"
    # A stripe: all look at the first frame alone.
    stripe = rho(torch.ones(len(frame), 1), frame[:, :1])
    assert torch.equal(stripe[0], torch.tensor([[1.0, 0, 0]] * 3)) and is_temporal(stripe)
    assert rho(place, place)[0].diagonal().tolist() == [1 / tokens] * frames


def test_the_command_classifies_the_nano_backbone_and_the_file_fits_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("imvideoedit.methods.freeprop_heads.VIDEOS", 1)
    main(["--output", str(tmp_path / "heads.json"), "--frames", "5"])
    assert "of 32 heads are temporal" in capsys.readouterr().out
    backbone = load_backbone("nano", device="cpu", parts=())
    FreeProp(rank=4, width=16, heads=str(tmp_path / "heads.json")).install(backbone.transformer)


def test_the_bundled_heads_are_those_of_the_bundled_backbone():
    backbone = load_backbone("nano", device="cpu", parts=())
    method = FreeProp(rank=4, width=16, heads="bundled")
    method.install(backbone.transformer)
    assert method.heads.backbone_hash == backbone.parameter_hash()
    assert 0 < sum(map(sum, method.config()["heads"])) < 32, "some are temporal, some spatial"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--frames", "16"], "4k \\+ 1"), (["--epsilon", "2"], "between 0 and 1"), (["none.mp4"], "none.mp4")],
)
def test_wrong_arguments_of_the_command_cost_one_line(tmp_path, capsys, arguments, words):
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--output", str(tmp_path / "heads.json")])
    assert ended.value.code == 2
    assert re.search(words, capsys.readouterr().err)


def test_costs_are_counted_on_models_of_fewer_blocks():
    config = TINY_TRANSFORMER | {"num_layers": 4}
    method = FreeProp(rank=4, width=16, heads=[[1, 0], [0, 1], [1, 1], [0, 0]], block=3)
    pairs = Pairs(1, 4, 6, text=5, frames=3)
    batch = pairs.batch(tiny_transformer(num_layers=4).config, method.inputs, "cpu", torch.float32)
    assert useful_flops(config, method, batch) > 0
    plain = FreeProp(rank=4, width=16, motion=0.0, consistency=0.0)
    assert useful_flops(config, method, batch) > useful_flops(config, plain, batch), "the teacher's pass counts"
