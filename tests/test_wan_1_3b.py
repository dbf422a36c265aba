"""The real size, on the meta device: shapes and counts without storage."""

import pytest
import torch

from imvideoedit.edit_batch import EditBatch
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.methods.parallel_2d import Parallel2D
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.wan.backbone import parameter_hash
from imvideoedit.wan.bases import WAN_1_3B, WAN_14B, meta_transformer

WIDTH, BLOCKS = 1536, 30
LINEAR = WIDTH * WIDTH + WIDTH


def trained(method):
    method.install(meta_transformer())
    return sum(parameter.numel() for parameter in method.parameters())


def test_the_backbone_has_its_known_size():
    assert sum(parameter.numel() for parameter in meta_transformer().parameters()) == 1_418_996_800
    assert sum(parameter.numel() for parameter in meta_transformer(WAN_14B).parameters()) == 14_288_491_584


def test_the_papers_adapter_has_its_size():
    # A block: three attentions of four projections and two norms each, W₀, two layers of GateProj, three layer norms.
    block = 3 * (4 * LINEAR + 2 * WIDTH) + LINEAR + 2 * LINEAR + 3 * 2 * WIDTH
    count = trained(PredictUpdate(update_init="paper"))
    assert count == BLOCKS * block
    assert count == pytest.approx(1.06e9, rel=0.01)
    assert trained(PredictUpdate(update_init="zero_out")) == count + BLOCKS * LINEAR


def test_the_ablations_leave_their_parts_out():
    attention = 4 * LINEAR + 2 * WIDTH
    full = trained(PredictUpdate(update_init="paper"))
    gate = attention + 2 * LINEAR + 2 * WIDTH
    assert trained(PredictUpdate(update_init="paper", gate=False)) == full - BLOCKS * gate
    assert trained(PredictUpdate(update=False)) == BLOCKS * (attention + LINEAR + 2 * WIDTH)
    assert trained(Parallel2D()) == BLOCKS * 2 * attention


def test_the_aligned_update_is_as_large_as_the_papers_adapter():
    # Two attentions, two maps of four widths each (gate and value), one map out, four layer norms; at the end the pull.
    glu = 2 * (4 * WIDTH + 1) * WIDTH
    pull = 2 * WIDTH + (WIDTH + 1) * 4 * 16
    assert trained(AlignedUpdate()) == pull + BLOCKS * (2 * (4 * LINEAR + 2 * WIDTH) + glu + LINEAR + 4 * 2 * WIDTH)
    assert trained(AlignedUpdate()) == pytest.approx(trained(PredictUpdate()), rel=0.07)


def test_the_low_rank_adapter_is_tens_of_megabytes():
    # Half precision: two bytes a number.
    assert 20e6 < 2 * trained(PredictUpdate(adapter="lora", rank=32)) < 100e6
    assert 10e6 < 2 * trained(PredictUpdate(adapter="lora", rank=16)) < 50e6


@pytest.mark.parametrize("stream", ["cached", "joint"])
@pytest.mark.parametrize("frames", [1, 21])
def test_a_training_step_fits_the_real_shapes(stream, frames):
    # All blocks have one shape, so two stand for thirty.
    transformer = meta_transformer(WAN_1_3B | {"num_layers": 2})
    method = PredictUpdate(source_stream=stream)
    method.install(transformer)
    with torch.device("meta"):
        latents = torch.randn(1, 16, frames, 60, 104)
        batch = EditBatch(latents, latents, torch.randn(1, 512, 4096))
    observed = method.condition(transformer, batch)
    if stream == "cached":
        tokens = frames * 30 * 52
        assert {tensor.shape for pair in observed.recorded.values() for tensor in pair} == {(1, tokens, WIDTH)}
        assert len(observed.recorded) == 2
    velocity = method.velocity(transformer, batch, observed)(latents, torch.rand(1, device="meta"))
    assert velocity.shape == latents.shape
    velocity.sum().backward()
    assert all(parameter.grad is not None for parameter in method.parameters())
    assert all(parameter.grad is None for parameter in transformer.parameters() if not parameter.requires_grad)


def test_a_model_without_values_has_no_hash():
    with pytest.raises(ValueError, match="meta device"):
        parameter_hash(meta_transformer({"num_layers": 1, "num_attention_heads": 1, "ffn_dim": 8}))
