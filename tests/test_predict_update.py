"""What holds for the predict-update method beyond the contract of all methods."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from imvideoedit.common.errors import UserError
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.wan.context import TokenContext
from imvideoedit.wan.forward import denoise
from tests.conftest import awaken, tiny_batch, tiny_transformer

SIGMA = torch.tensor([0.3, 0.8])


def installed(awake=True, num_layers=2, **options):
    transformer, method = tiny_transformer(num_layers=num_layers), PredictUpdate(**options)
    torch.manual_seed(0)
    method.install(transformer)
    if awake:
        awaken(method)
    return transformer, method


@pytest.mark.parametrize("update_init", ["zero_out", "paper"])
@pytest.mark.parametrize("stream", ["cached", "joint"])
def test_a_block_follows_the_equations(stream, update_init):
    """Eq. 4 to 10 spelled out on both streams; a cached source has A_2d = 0, so its R is its A_3d."""
    transformer, method = installed(source_stream=stream, update_init=update_init)
    block = method.blocks[1]
    h, a_3d = torch.randn(2, 2, 18, 24)
    text = torch.randn(2, 5, 24)
    latents = torch.empty(1, 4, 3, 4, 6)
    context = TokenContext.build(transformer.rope, latents, text, torch.empty(0), None)
    seen = torch.tensor([1.0, 1.0 if stream == "joint" else 0.0]).reshape(2, 1, 1)

    a_2d = seen * block.phi_1(h, None, context.grid, context.plane("aligned"))
    h_pred = a_3d + seen * block.w_0(a_2d)
    delta = block.phi_2(h_pred - a_2d, None, context.grid, context.plane("aligned"))
    gate = torch.sigmoid(
        block.gate.projection(block.gate.attention(block.gate.norm(delta), block.gate.attention.keys_values(text)))
    )
    expected = h_pred + gate * (block.zero_out(delta) if update_init == "zero_out" else delta)

    if stream == "joint":
        torch.testing.assert_close(block.edit(h, a_3d, context, None), expected)
    else:
        context = TokenContext.build(transformer.rope, latents, text[:1], torch.empty(0), None)
        ours = block.edit(h[:1], a_3d[:1], context, block.prepare(h[1:], a_3d[1:], context))
        torch.testing.assert_close(ours, expected[:1])


@pytest.mark.parametrize("stream", ["cached", "joint"])
def test_without_w0_the_prediction_is_the_frozen_attention(stream):
    """W₀ = 0 gives H_pred = A_3d, whatever Φ₁ has become."""
    transformer, method = installed(update=False, source_stream=stream)
    batch = tiny_batch()
    awake = method.velocity(transformer, batch)(batch.target_BCFHW, SIGMA)
    for processor in method.blocks:
        nn.init.zeros_(processor.w_0.weight)
        nn.init.zeros_(processor.w_0.bias)
    ours = method.velocity(transformer, batch)(batch.target_BCFHW, SIGMA)
    method.uninstall()
    streams, sigmas = torch.cat([batch.target_BCFHW, batch.source_BCFHW]), torch.cat([SIGMA, torch.zeros(2)])
    rows = slice(None) if stream == "joint" else slice(2)
    base = denoise(transformer, streams[rows], sigmas[rows], torch.cat([batch.text_BTD] * 2)[rows])[:2]
    assert torch.equal(ours, base)
    assert not torch.allclose(awake, base)


def test_the_papers_start_is_not_the_base_model():
    batch = tiny_batch()
    transformer, method = installed(awake=False, update_init="paper")
    ours = method.velocity(transformer, batch)(batch.target_BCFHW, SIGMA)
    method.uninstall()
    assert (ours - denoise(transformer, batch.target_BCFHW, SIGMA, batch.text_BTD)).abs().max() > 1e-3


def test_a_cached_source_is_computed_once_and_is_the_plain_backbone():
    """The features are those of the backbone alone, untouched by the adapter's weights."""
    transformer, method = installed(awake=False)
    batch = tiny_batch()
    before = method.condition(transformer, batch).recorded
    awaken(method)
    after = method.condition(transformer, batch).recorded
    assert sorted(before) == [0, 1]
    for index, pair in before.items():
        assert all(torch.equal(one, two) for one, two in zip(pair, after[index], strict=True))
    h, a_3d = before[1]
    attn = transformer.blocks[1].attn1
    rotary = transformer.rope(batch.source_BCFHW)
    assert torch.equal(attn.processor.inner(attn, h, None, None, tuple(rotary)), a_3d)
    counted = []
    handle = transformer.register_forward_hook(lambda *_: counted.append(1))
    velocity = method.velocity(transformer, batch)
    for _ in range(3):
        velocity(batch.target_BCFHW, SIGMA)
    handle.remove()
    assert len(counted) == 4


def test_the_two_streams_agree_where_only_the_target_reads():
    """One block, update off: the source's own edit cannot reach the target any more, so both modes coincide."""
    batch = tiny_batch()
    velocities = []
    for stream in ("cached", "joint"):
        transformer, method = installed(num_layers=1, update=False, source_stream=stream)
        velocities.append(method.velocity(transformer, batch)(batch.target_BCFHW, SIGMA))
    torch.testing.assert_close(*velocities, rtol=1e-4, atol=1e-5)


def test_a_few_steps_learn_a_fixed_edit():
    transformer, method = installed(awake=False)
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    course = []
    for _ in range(30):
        optimizer.zero_grad()
        losses = method.losses(transformer, tiny_batch(), torch.Generator().manual_seed(0), SIGMA)
        loss = losses["flow_matching"].mean()
        loss.backward()
        optimizer.step()
        course.append(loss.item())
    assert course[-1] < 0.8 * course[0]


def test_unknown_start_and_empty_rank_are_refused():
    with pytest.raises(UserError, match="method.update_init"):
        PredictUpdate(update_init="zero")
    with pytest.raises(UserError, match="method.rank is 0"):
        PredictUpdate(rank=0)


def test_a_batch_without_a_target_has_no_loss():
    transformer, method = installed()
    with pytest.raises(ValueError, match="without a target"):
        method.losses(transformer, replace(tiny_batch(), target_BCFHW=None))
