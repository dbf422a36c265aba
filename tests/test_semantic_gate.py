import torch
from torch import nn

from imvideoedit.layers.attention import Attention
from imvideoedit.layers.semantic_gate import SemanticGate
from imvideoedit.methods.predict_update import PredictUpdate
from tests.conftest import awaken, tiny_batch, tiny_transformer

WIDTH = 24


def make_gate():
    torch.manual_seed(0)
    block = tiny_transformer().blocks[0]
    return SemanticGate(Attention(block.attn2, "full", 1), nn.LayerNorm(WIDTH), WIDTH, WIDTH), block


def test_each_token_and_channel_has_its_own_opening():
    gate, _ = make_gate()
    awaken(gate)
    opening = gate(torch.randn(2, 6, WIDTH), torch.randn(2, 5, WIDTH))
    assert opening.shape == (2, 6, WIDTH)
    assert ((opening > 0) & (opening < 1)).all()
    assert opening.flatten().unique().numel() == opening.numel()


def test_it_is_the_frozen_cross_attention_then_two_layers():
    gate, block = make_gate()
    delta, text = torch.randn(2, 6, WIDTH), torch.randn(2, 5, WIDTH)
    first, activation, second = gate.projection
    semantics = block.attn2(nn.functional.layer_norm(delta, (WIDTH,)), text)
    torch.testing.assert_close(gate(delta, text), torch.sigmoid(second(activation(first(semantics)))))


def test_it_changes_with_the_text():
    gate, _ = make_gate()
    delta, text = torch.randn(2, 6, WIDTH), torch.randn(2, 5, WIDTH)
    other = text.clone()
    other[1] += 1
    same = (gate(delta, text) == gate(delta, other)).flatten(1)
    assert same[0].all()
    assert not same[1].any()


def awakened(gate):
    torch.manual_seed(0)
    transformer, method = tiny_transformer(), PredictUpdate(gate=gate, source_stream="joint")
    method.install(transformer)
    for processor in method.blocks:
        for part in (processor.phi_1, processor.phi_2, processor.w_0, processor.zero_out):
            awaken(part)
    return transformer, method


def test_without_the_gate_it_is_all_ones():
    batch = tiny_batch()
    sigma = torch.tensor([0.4, 0.8])
    transformer, ungated = awakened(gate=False)
    expected = ungated.velocity(transformer, batch)(batch.target_BCFHW, sigma)
    assert all(processor.gate is None for processor in ungated.blocks)

    transformer, gated = awakened(gate=True)
    half_open = gated.velocity(transformer, batch)(batch.target_BCFHW, sigma)
    assert not torch.allclose(half_open, expected)
    for processor in gated.blocks:
        # σ(x) is exactly 1 in float32 from about 17 on.
        nn.init.constant_(processor.gate.projection[-1].bias, 100.0)
    assert torch.equal(gated.velocity(transformer, batch)(batch.target_BCFHW, sigma), expected)
