"""One contract for every method and configuration; a new method adds a row to ``VARIANTS``."""

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from imvideoedit.edit_batch import EditBatch
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.methods.base import Method
from imvideoedit.methods.parallel_2d import Parallel2D
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.wan.backbone import parameter_hash
from imvideoedit.wan.forward import denoise
from tests.conftest import awaken, tiny_batch, tiny_transformer

STREAMS: list[dict[str, Any]] = [
    {"source_stream": stream, "adapter": adapter, "rank": 4}
    for stream, adapter in itertools.product(("cached", "joint"), ("full", "lora"))
]
EXTRAS: list[dict[str, Any]] = [
    {},
    {"update_init": "paper"},
    {"gate": False},
    {"update": False},
    {"position": "aligned"},
]
VARIANTS: list[tuple[type[Method], dict[str, Any]]] = [
    (PredictUpdate, streams | extra) for streams in STREAMS for extra in EXTRAS
]
VARIANTS += [
    (kind, streams | {"position": position})
    for kind in (Parallel2D, AlignedUpdate)
    for streams in STREAMS
    for position in ("running", "aligned")
]
# The paper's start is not the base model, by its own definition.
EXACT_STARTS = [(kind, options) for kind, options in VARIANTS if options.get("update_init") != "paper"]
SIGMA = torch.tensor([0.3, 0.8])


def name_of(variant):
    kind, options = variant
    return "-".join([kind.name, *(f"{key}={value}" for key, value in options.items() if key != "rank")])


def installed(variant, awake=True, **config):
    kind, options = variant
    transformer = tiny_transformer(**config)
    method = kind(**options)
    torch.manual_seed(0)
    method.install(transformer)
    if awake:
        awaken(method)
    return transformer, method


def every(variants):
    return pytest.mark.parametrize("variant", variants, ids=name_of)


@every(VARIANTS)
def test_only_the_adapter_is_trained(variant):
    transformer, method = installed(variant, awake=False)
    backbone = {name: p for name, p in transformer.named_parameters() if ".processor." not in name}
    before = {name: parameter.clone() for name, parameter in backbone.items()}
    fingerprint = parameter_hash(transformer)
    start = {name: parameter.clone() for name, parameter in method.named_parameters()}
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        optimizer.zero_grad()
        losses = method.losses(transformer, tiny_batch(), generator)
        sum(loss.mean() for loss in losses.values()).backward()
        optimizer.step()
    assert parameter_hash(transformer) == fingerprint
    assert all(torch.equal(parameter, before[name]) for name, parameter in backbone.items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in backbone.values())
    assert [name for name, parameter in method.named_parameters() if torch.equal(parameter, start[name])] == []


@every(VARIANTS)
def test_losses_are_one_value_a_sample_and_repeatable(variant):
    transformer, method = installed(variant)
    first, second = (method.losses(transformer, tiny_batch(), torch.Generator().manual_seed(5)) for _ in range(2))
    assert first.keys() == {"flow_matching"}
    loss = first["flow_matching"]
    assert loss.shape == (2,) and loss.dtype == torch.float32 and loss.isfinite().all()
    assert torch.equal(loss, second["flow_matching"])
    fixed = method.losses(transformer, tiny_batch(), torch.Generator().manual_seed(5), torch.tensor([0.1, 0.9]))
    assert not torch.equal(loss, fixed["flow_matching"])


@every(EXACT_STARTS)
def test_training_starts_at_the_base_model_bit_for_bit(variant):
    transformer, method = installed(variant, awake=False)
    batch = tiny_batch()
    ours = method.velocity(transformer, batch)(batch.target_BCFHW, SIGMA)
    method.uninstall()
    if variant[1]["source_stream"] == "joint":
        # A product over more rows may round otherwise, so the base gets the same stack of streams.
        streams, sigmas = torch.cat([batch.target_BCFHW, batch.source_BCFHW]), torch.cat([SIGMA, torch.zeros(2)])
        base = denoise(transformer, streams, sigmas, torch.cat([batch.text_BTD] * 2))[:2]
    else:
        base = denoise(transformer, batch.target_BCFHW, SIGMA, batch.text_BTD)
    assert torch.equal(ours, base)


@every(VARIANTS)
def test_the_source_reaches_the_target(variant):
    transformer, method = installed(variant)
    batch = tiny_batch()
    other = replace(batch, source_BCFHW=batch.source_BCFHW + 1)
    one, two = (method.velocity(transformer, each)(batch.target_BCFHW, SIGMA) for each in (batch, other))
    assert (one - two).abs().max() > 1e-4


@every(VARIANTS)
def test_the_text_changes_the_velocity(variant):
    transformer, method = installed(variant)
    batch = tiny_batch()
    observed = method.condition(transformer, batch)
    other = replace(batch, text_BTD=batch.text_BTD.flip(0))
    one, two = (method.velocity(transformer, each, observed)(batch.target_BCFHW, SIGMA) for each in (batch, other))
    assert not torch.allclose(one, two)


@every(VARIANTS)
def test_samples_do_not_mix(variant):
    transformer, method = installed(variant)
    batch = tiny_batch()
    together = method.velocity(transformer, batch)(batch.target_BCFHW, SIGMA)
    for row in range(2):
        part = slice(row, row + 1)
        alone = EditBatch(batch.source_BCFHW[part], None, batch.text_BTD[part])
        velocity = method.velocity(transformer, alone)(batch.target_BCFHW[part], SIGMA[part])
        torch.testing.assert_close(velocity, together[part], rtol=1e-4, atol=1e-5)


@every(VARIANTS)
@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 6, 2), (5, 2, 4)], ids=str)
def test_any_shape_runs(variant, shape):
    transformer, method = installed(variant)
    batch = tiny_batch(1, *shape)
    velocity = method.velocity(transformer, batch)(batch.target_BCFHW, SIGMA[:1])
    assert velocity.shape == batch.target_BCFHW.shape
    assert velocity.isfinite().all()


@every(VARIANTS)
@pytest.mark.parametrize(
    "config", [{"patch_size": (1, 1, 1)}, {"patch_size": (3, 2, 2)}, {"num_attention_heads": 3}], ids=str
)
def test_any_transformer_will_do(variant, config):
    transformer, method = installed(variant, **config)
    assert method.losses(transformer, tiny_batch())["flow_matching"].isfinite().all()


@every(VARIANTS)
def test_gradient_checkpointing_gives_the_same_gradients(variant):
    transformer, method = installed(variant)
    gradients = []
    for _ in range(2):
        method.zero_grad()
        method.losses(transformer, tiny_batch(), torch.Generator().manual_seed(0))["flow_matching"].sum().backward()
        gradients.append([parameter.grad.clone() for parameter in method.parameters()])
        transformer.enable_gradient_checkpointing()
    assert all(torch.equal(plain, again) for plain, again in zip(*gradients, strict=True))


@every(VARIANTS)
def test_mixed_precision_trains(variant):
    transformer, method = installed(variant)
    full = method.losses(transformer, tiny_batch(), torch.Generator().manual_seed(0))["flow_matching"]
    transformer.to(torch.bfloat16)
    method.to(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = method.losses(transformer, tiny_batch(), torch.Generator().manual_seed(0))["flow_matching"]
    loss.mean().backward()
    torch.testing.assert_close(loss, full, rtol=0.1, atol=0.1)
    assert all(parameter.grad.dtype == torch.float32 for parameter in method.parameters())


@every(VARIANTS)
def test_the_settings_rebuild_the_method(variant):
    kind, options = variant
    _, method = installed(variant)
    settings = json.loads(json.dumps(method.config()))
    assert options.items() <= settings.items()
    _, again = installed((kind, settings), awake=False)
    assert again.config() == method.config()
    again.load_state_dict(method.state_dict(), strict=True)


@every(VARIANTS)
def test_uninstalling_gives_the_backbone_back(variant):
    pristine = tiny_transformer().state_dict()
    transformer, method = installed(variant)
    method.uninstall()
    method.uninstall()
    assert list(method.parameters()) == []
    state = transformer.state_dict()
    assert list(state) == list(pristine)
    assert all(torch.equal(state[name], weight) for name, weight in pristine.items())
    method.install(transformer)
    with pytest.raises(RuntimeError, match="installed already"):
        method.install(transformer)


@every(VARIANTS)
def test_the_adapter_registers_only_what_it_trains(variant):
    _, method = installed(variant)
    assert all(parameter.requires_grad for parameter in method.parameters())
    assert list(method.buffers()) == []
    assert method.state_dict().keys() == {name for name, _ in method.named_parameters()}
    if variant[1]["adapter"] == "lora":
        inherited = [name for name in method.state_dict() if "attention" in name]
        assert inherited and all("delta" in name for name in inherited)
