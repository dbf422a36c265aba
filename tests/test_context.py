import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from imvideoedit.layers.rope import POSITIONS
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.wan.context import AdaptedProcessor, attach, block_dtype, denoise_with, detach
from imvideoedit.wan.forward import (
    close_forward,
    denoise,
    denoise_in_parts,
    embed,
    modulation,
    open_forward,
    run_blocks,
    tapped,
    unembed,
    widen_patch_embedding,
)
from tests.conftest import awaken, tiny_batch, tiny_transformer


class Listener(AdaptedProcessor):
    """Adds nothing and keeps the contexts it gets."""

    def __init__(self, index):
        super().__init__(index)
        self.contexts = []

    def adapt(self, h_BLD, a_3d_BLD, context):
        self.contexts.append(context)
        return a_3d_BLD


@pytest.mark.parametrize(("patch", "grid"), [((1, 2, 2), (3, 2, 4)), ((1, 1, 2), (3, 4, 4)), ((3, 2, 4), (1, 2, 2))])
def test_each_block_gets_grid_text_and_modulation(patch, grid):
    transformer = tiny_transformer(patch_size=patch)
    listeners = [Listener(index) for index in range(2)]
    open_forward(transformer)
    attach(transformer, listeners)
    call = object()
    denoise_with(transformer, torch.randn(2, 4, 3, 4, 8), torch.rand(2), torch.randn(2, 5, 16), call)
    for listener in listeners:
        (context,) = listener.contexts
        assert context.grid == grid
        assert context.call is call
        assert context.text_BTD.shape == (2, 5, 24)
        assert context.temb.shape == (2, 6, 24)
        assert len(context) == 2


def test_timesteps_per_token_pass(transformer):
    listeners = [Listener(index) for index in range(2)]
    open_forward(transformer)
    attach(transformer, listeners)
    denoise_with(transformer, torch.randn(1, 4, 1, 4, 4), torch.rand(1, 4), torch.randn(1, 5, 16), object())
    assert listeners[1].contexts[0].temb.shape == (1, 4, 6, 24)


@pytest.mark.parametrize("position", POSITIONS)
def test_the_plane_holds_the_backbones_own_positions(transformer, position):
    listener = Listener(0)
    open_forward(transformer)
    attach(transformer, [listener, Listener(1)])
    denoise_with(transformer, torch.randn(1, 4, 3, 4, 6), torch.rand(1), torch.randn(1, 5, 16), object())
    plane = listener.contexts[0].plane(position)
    # The frozen model's tables for one picture of 2 x 6 tokens, twice as wide as the stream's 2 x 3.
    for built, wide in zip(plane, transformer.rope(torch.empty(1, 4, 1, 4, 12)), strict=True):
        left, right = wide.reshape(2, 6, 12).split(3, dim=1)
        second = right if position == "running" else left
        expected = torch.cat([left.reshape(6, 12), second.reshape(6, 12)]).reshape(1, 12, 1, 12)
        assert torch.equal(built, expected)


def test_a_plain_pass_through_an_adapted_transformer_is_the_backbone(transformer, batch):
    sigma = torch.tensor([0.2, 0.9])
    before = denoise(transformer, batch.source_BCFHW, sigma, batch.text_BTD)
    method = PredictUpdate(update_init="paper")
    method.install(transformer)
    awaken(method)
    assert torch.equal(denoise(transformer, batch.source_BCFHW, sigma, batch.text_BTD), before)


def test_the_networks_timestep_is_a_thousand_sigma(transformer, batch):
    sigma = torch.tensor([0.25, 0.5])
    expected = transformer(batch.source_BCFHW, torch.tensor([250.0, 500.0]), batch.text_BTD).sample
    assert torch.equal(denoise(transformer, batch.source_BCFHW, sigma, batch.text_BTD), expected)


def test_a_call_without_a_method_is_an_error(transformer, batch):
    with pytest.raises(RuntimeError, match="no method is installed"):
        denoise_with(transformer, batch.source_BCFHW, torch.zeros(2), batch.text_BTD, object())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("patch", [(1, 2, 2), (1, 1, 2), (3, 2, 4)])
def test_the_forward_pass_in_parts_is_the_stock_one(patch, per_token, dtype):
    transformer = tiny_transformer(patch_size=patch).to(dtype)
    latents, text = torch.randn(2, 4, 3, 4, 8, dtype=dtype), torch.randn(2, 5, 16, dtype=dtype)
    tokens = embed(transformer, latents).shape[1]
    sigma = torch.rand((2, tokens) if per_token else (2,))
    timestep = 1000 * sigma
    expected = transformer(latents, timestep, text).sample
    time, rows, projected = modulation(transformer, timestep, text)
    hidden = run_blocks(transformer, embed(transformer, latents), projected, rows, transformer.rope(latents))
    assert torch.equal(unembed(transformer, hidden, time, latents.shape), expected)
    open_forward(transformer)
    attach(transformer, [Listener(0), Listener(1)])
    with tapped(transformer, [1]) as outputs:
        velocity, last = denoise_with(transformer, latents, sigma, text, object())
    assert torch.equal(velocity, expected) and torch.equal(last, hidden) and outputs[1] is last
    assert torch.equal(transformer(latents, timestep, text).sample, expected)
    with tapped(transformer, [1]) as outer, tapped(transformer, [0, 1]) as inner:
        plain = denoise_in_parts(transformer, latents, sigma, text)
    assert torch.equal(plain, expected) and torch.equal(outer[1], hidden) and inner[1] is outer[1]


def test_rotary_tables_may_differ_from_block_to_block(transformer, batch):
    latents, text = batch.source_BCFHW, batch.text_BTD
    time, rows, projected = modulation(transformer, torch.tensor([250.0, 500.0]), text)
    cos, sin = transformer.rope(latents)
    outputs = [
        run_blocks(transformer, embed(transformer, latents), projected, rows, rotary)
        for rotary in ((cos, sin), [(cos, sin)] * 2, [(cos, sin), (cos, -sin)])
    ]
    assert torch.equal(outputs[0], outputs[1]) and not torch.allclose(outputs[0], outputs[2])


def test_image_tokens_go_before_the_text():
    transformer = tiny_transformer(image_dim=12, added_kv_proj_dim=24)
    latents, text, image = torch.randn(2, 4, 3, 4, 8), torch.randn(2, 5, 16), torch.randn(2, 257, 12)
    timestep = torch.tensor([250.0, 500.0])
    expected = transformer(latents, timestep, text, image).sample
    time, rows, projected = modulation(transformer, timestep, text, image)
    hidden = run_blocks(transformer, embed(transformer, latents), projected, rows, transformer.rope(latents))
    assert torch.equal(unembed(transformer, hidden, time, latents.shape), expected)
    assert not torch.allclose(expected, transformer(latents, timestep, text, image.flip(0)).sample)


def test_a_widened_patch_embedding_is_that_of_more_channels(transformer, batch):
    latents, more = batch.source_BCFHW, torch.randn(2, 3, *batch.source_BCFHW.shape[2:])
    columns = widen_patch_embedding(transformer, 3, torch.float32)
    assert torch.equal(embed(transformer, latents, columns, more), embed(transformer, latents))
    nn.init.normal_(columns.weight)
    own = transformer.patch_embedding
    weight = torch.cat([own.weight, columns.weight], dim=1)
    wide = functional.conv3d(torch.cat([latents, more], dim=1), weight, own.bias, own.stride)
    tokens = embed(transformer, latents, columns, more)
    torch.testing.assert_close(tokens, wide.flatten(2).transpose(1, 2), rtol=1e-5, atol=1e-5)


def test_a_copy_of_an_adapted_transformer_runs_its_own_weights(transformer, batch):
    open_forward(transformer)
    attach(transformer, [Listener(0), Listener(1)])
    copied = copy.deepcopy(transformer)
    torch.nn.init.zeros_(copied.proj_out.weight)
    torch.nn.init.zeros_(copied.proj_out.bias)
    velocity, _ = denoise_with(copied, batch.source_BCFHW, torch.ones(2), batch.text_BTD, object())
    assert not velocity.any()


def test_attach_and_detach_leave_no_trace(transformer):
    processors = [block.attn1.processor for block in transformer.blocks]
    weights = {name: weight.clone() for name, weight in transformer.state_dict().items()}
    method = PredictUpdate()
    method.install(transformer)
    assert len(list(transformer.parameters())) > len(weights)
    method.uninstall()
    assert [block.attn1.processor for block in transformer.blocks] == processors
    assert transformer.state_dict().keys() == weights.keys()
    assert all(torch.equal(weight, weights[name]) for name, weight in transformer.state_dict().items())
    assert sum(parameter.numel() for parameter in transformer.parameters()) == sum(map(torch.numel, weights.values()))
    assert "forward" not in vars(transformer)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in transformer.modules())


def test_two_adapters_do_not_share_a_transformer(transformer):
    open_forward(transformer)
    attach(transformer, [Listener(0), Listener(1)])
    with pytest.raises(RuntimeError, match="adapted already"):
        PredictUpdate().install(transformer)
    detach(transformer)
    close_forward(transformer)
    PredictUpdate().install(transformer)


def test_kernel_choice_reaches_the_frozen_attention(transformer):
    inner = transformer.blocks[0].attn1.processor
    PredictUpdate().install(transformer)
    transformer.set_attention_backend("native")
    assert inner._attention_backend == "native" == transformer.blocks[0].attn1.processor._attention_backend
    transformer.blocks[0].attn1.processor._parallel_config = "sharded"
    assert inner._parallel_config == "sharded" == transformer.blocks[0].attn1.processor._parallel_config


def test_a_checkpointed_block_is_recomputed_with_its_own_grid(transformer):
    method = PredictUpdate(source_stream="joint", update_init="paper")
    method.install(transformer)
    awaken(method)

    def gradients(interrupted):
        batch = tiny_batch(height=4, width=6)
        method.zero_grad()
        velocity = method.velocity(transformer, batch)(batch.target_BCFHW, torch.tensor([0.3, 0.7]))
        if interrupted:
            other = tiny_batch(frames=1, height=8, width=4)
            method.velocity(transformer, other)(other.target_BCFHW, torch.tensor([0.5, 0.5])).sum()
        velocity.square().mean().backward()
        return [parameter.grad.clone() for parameter in method.parameters()]

    plain = gradients(interrupted=False)
    transformer.enable_gradient_checkpointing()
    for interrupted in (False, True):
        for expected, gradient in zip(plain, gradients(interrupted), strict=True):
            assert torch.equal(gradient, expected)


def test_block_dtype_is_that_of_the_projections(transformer):
    transformer.blocks.to(torch.bfloat16)
    assert block_dtype(transformer) == torch.bfloat16
