"""One contract for every method and configuration; a new method adds a row to ``ROWS``."""

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map

from imvideoedit.edit_batch import EditBatch
from imvideoedit.flow.solvers import State, video_of, with_video
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.methods.base import Method
from imvideoedit.methods.freeprop import FreeProp
from imvideoedit.methods.image_condition import condition_channels
from imvideoedit.methods.in_context import InContext
from imvideoedit.methods.known import METHODS
from imvideoedit.methods.lora_edit import LoraEdit
from imvideoedit.methods.mive import Mive
from imvideoedit.methods.parallel_2d import Parallel2D
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.methods.sama import Sama
from imvideoedit.wan.backbone import parameter_hash
from imvideoedit.wan.forward import denoise, embed, modulation, run_blocks, unembed
from tests.conftest import awaken, tiny_batch, tiny_transformer
from tests.processes import CHECKOUT
from tests.toy_method import TOKENS, Toy

SIGMA = torch.tensor([0.3, 0.8])
Start = Callable[[Any, EditBatch, State], torch.Tensor]


@dataclass(frozen=True)
class Row:
    """A method to hold to the contract.

    Attributes:
        kind, options: of the method.
        batch: makes a tiny batch, as ``tiny_batch`` does.
        start: the video's velocity at ``SIGMA`` from the transformer alone that training starts at exactly; None where
            the method starts elsewhere.
        config: of the tiny transformer.
    """

    kind: type[Method]
    options: dict[str, Any]
    batch: Callable[..., EditBatch]
    start: Start | None
    config: dict[str, Any] = field(default_factory=dict)


def base_alone(transformer, batch, state):
    return denoise(transformer, video_of(state), SIGMA, batch.text_BTD)


def base_of_both_streams(transformer, batch, state):
    # A product over more rows may round otherwise, so the base gets the same stack of streams.
    streams, sigmas = torch.cat([video_of(state), batch.source_BCFHW]), torch.cat([SIGMA, torch.zeros(2)])
    return denoise(transformer, streams, sigmas, torch.cat([batch.text_BTD] * 2))[:2]


def base_behind_two_empty_tokens(transformer, batch, state):
    x_BCFHW = video_of(state)
    tokens = embed(transformer, x_BCFHW)
    hidden = torch.cat([torch.zeros_like(tokens[:, :TOKENS]), tokens], dim=1)
    share_L = torch.tensor([0.5] * TOKENS + [1.0] * tokens.shape[1])
    time, rows, text = modulation(transformer, 1000 * (SIGMA[:, None] * share_L), batch.text_BTD)
    cos, sin = transformer.rope(x_BCFHW)
    still = torch.zeros_like(sin[:, :TOKENS])
    rotary = torch.cat([still.cos(), cos], 1), torch.cat([still, sin], 1)
    hidden = run_blocks(transformer, hidden, text, rows, rotary)
    return unembed(transformer, hidden[:, TOKENS:], time[:, TOKENS:], x_BCFHW.shape)


def base_beside_the_source(place, transformer, batch, state):
    x_BCFHW = video_of(state)
    tokens, frames = [embed(transformer, each) for each in (x_BCFHW, batch.source_BCFHW)], x_BCFHW.shape[2]
    count = tokens[0].shape[1]
    sigma_BL = torch.cat([SIGMA[:, None].expand(-1, count), torch.zeros(len(SIGMA), count)], dim=1)
    time, rows, text = modulation(transformer, 1000 * sigma_BL, batch.text_BTD)
    if place == "behind":
        rotary = transformer.rope(torch.zeros(1, 4, 2 * frames, *x_BCFHW.shape[3:]))
    else:
        rotary = tuple(table.repeat(1, 2, 1, 1) for table in transformer.rope(x_BCFHW))
    hidden = run_blocks(transformer, torch.cat(tokens, dim=1), text, rows, rotary)
    return unembed(transformer, hidden[:, :count], time[:, :count], x_BCFHW.shape)


def batch_with_inputs(batch: int = 2, frames: int = 3, height: int = 4, width: int = 6, seed: int = 1) -> EditBatch:
    plain, generator = tiny_batch(batch, frames, height, width, seed), torch.Generator().manual_seed(seed + 1)
    first = torch.randn(batch, 4, 1, height, width, generator=generator)
    mask = torch.rand(batch, 1, 4 * (frames - 1) + 1, 8 * height, 8 * width, generator=generator).round()
    return replace(plain, conditions={"first_frame": first, "mask": mask})


def batch_with_first_frame(*args: Any, **options: Any) -> EditBatch:
    whole = batch_with_inputs(*args, **options)
    return replace(whole, conditions={"first_frame": whole.conditions["first_frame"]})


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


def two_stream(kind: type[Method], options: dict[str, Any]) -> Row:
    # The paper's start is not the base model, by its own definition.
    start = base_of_both_streams if options["source_stream"] == "joint" else base_alone
    return Row(kind, options, tiny_batch, None if options.get("update_init") == "paper" else start)


ROWS = [two_stream(PredictUpdate, streams | extra) for streams in STREAMS for extra in EXTRAS]
ROWS += [
    two_stream(kind, streams | {"position": position})
    for kind in (Parallel2D, AlignedUpdate)
    for streams in STREAMS
    for position in ("running", "aligned")
]
ROWS += [Row(Toy, {"scale": 0.5}, batch_with_inputs, base_behind_two_empty_tokens)]


FREEPROP = {"rank": 4, "width": 16, "block": 1}
ROWS += [
    Row(FreeProp, FREEPROP | {"heads": [[1, 0], [0, 1]]}, batch_with_first_frame, base_alone),
    Row(FreeProp, FREEPROP | {"heads": None, "motion": 0.0, "consistency": 0.0}, batch_with_first_frame, base_alone),
]

ROWS += [
    Row(InContext, {"rank": 4, "maps": maps, "place": place}, tiny_batch, partial(base_beside_the_source, place))
    for maps, place in (("all", "same"), ("attention", "behind"))
]


def base_beside_its_condition(transformer, batch, state):
    given = batch.conditions
    channels = condition_channels(given["mask"], given["masked_video"], given["first_frame"])
    return denoise(transformer, torch.cat([video_of(state), channels], dim=1), SIGMA, batch.text_BTD)


def batch_with_masked_video(*args: Any, **options: Any) -> EditBatch:
    whole = batch_with_inputs(*args, **options)
    return replace(whole, conditions={**whole.conditions, "masked_video": whole.source_BCFHW.flip(-1)})


ROWS += [
    Row(LoraEdit, {"rank": 4, "target": t}, batch_with_masked_video, base_beside_its_condition, {"in_channels": 12})
    for t in ("paper", "release")
]


def batch_with_tokens(*args: Any, **options: Any) -> EditBatch:
    plain = tiny_batch(*args, **options)
    tokens = torch.randn(len(plain.source_BCFHW), 65, 8, generator=torch.Generator().manual_seed(4))
    return replace(plain, labels={"semantic": tokens})


SAMA = {"rank": 4, "width": 8, "hidden": 12}
ROWS += [
    Row(Sama, SAMA | options, batch_with_tokens, None)
    for options in (
        {"adapter": "full"},
        {"adapter": "lora"},
        {"adapter": "lora", "sem_target": "x0_projected", "sem_rope": "zero"},
        {"adapter": "lora", "anchoring": False, "roles": "shift"},
    )
]


def batch_with_features(*args: Any, **options: Any) -> EditBatch:
    whole, generator = batch_with_inputs(*args, **options), torch.Generator().manual_seed(4)
    reference = whole.conditions["first_frame"]
    features = torch.randn(len(reference), 9, 8, generator=generator)
    if len(features) > 1:
        features[1, -2:] = 0  # padding
    return replace(whole, text_BTD=features, conditions={"reference": reference})


MIVE = {"rank": 4, "width": 4, "token": 16, "text_tokens": 5}
ROWS += [
    Row(Mive, MIVE | options, batch_with_features, None)
    for options in (
        {"adapter": "full"},
        {"adapter": "lora"},
        {"adapter": "lora", "layers": "last", "width": 8},
        {"adapter": "full", "conditioning": "cross"},
        {"adapter": "lora", "conditioning": "cross"},
    )
]


def name_of(row):
    return "-".join([row.kind.name, *(f"{key}={value}" for key, value in row.options.items() if key != "rank")])


def installed(row, awake=True, **config):
    transformer = tiny_transformer(**row.config | config)
    method = row.kind(**row.options)
    torch.manual_seed(0)
    method.install(transformer)
    if awake:
        awaken(method)
    return transformer, method


def state_of(method, batch):
    """A state to ask for the velocity at: the target, and noise in place of what else is sampled."""
    return with_video(method.initial(batch, torch.Generator().manual_seed(3)), batch.target_BCFHW)


def total(losses):
    return torch.stack([loss_B.mean() for loss_B in losses.values()]).sum()


def part_of(batch, rows):
    conditions = {name: value[rows] for name, value in batch.conditions.items()}
    return replace(
        batch,
        source_BCFHW=batch.source_BCFHW[rows],
        target_BCFHW=batch.target_BCFHW[rows],
        text_BTD=batch.text_BTD[rows],
        conditions=conditions,
    )


every = partial(pytest.mark.parametrize, "row", ids=name_of)


@every(ROWS)
def test_only_the_adapter_is_trained(row):
    transformer, method = installed(row, awake=False)
    backbone = {name: p for name, p in transformer.named_parameters() if ".processor." not in name}
    if method.trains_backbone:  # all of it is the method's
        backbone = {}
    before = {name: parameter.clone() for name, parameter in backbone.items()}
    fingerprint = parameter_hash(transformer)
    start = {name: parameter.clone() for name, parameter in method.named_parameters()}
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        optimizer.zero_grad()
        total(method.losses(transformer, row.batch(), generator)).backward()
        optimizer.step()
    assert (parameter_hash(transformer) == fingerprint) != method.trains_backbone
    assert all(torch.equal(parameter, before[name]) for name, parameter in backbone.items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in backbone.values())
    assert [name for name, parameter in method.named_parameters() if torch.equal(parameter, start[name])] == []


@every(ROWS)
def test_losses_are_one_value_a_sample_and_repeatable(row):
    transformer, method = installed(row)
    batch = row.batch()
    first, second = (method.losses(transformer, batch, torch.Generator().manual_seed(5)) for _ in range(2))
    assert "flow_matching" in first
    for name, loss in first.items():
        assert loss.shape == (2,) and loss.dtype == torch.float32 and loss.isfinite().all()
        assert torch.equal(loss, second[name])
    fixed = method.losses(transformer, batch, torch.Generator().manual_seed(5), torch.tensor([0.1, 0.9]))
    assert not torch.equal(first["flow_matching"], fixed["flow_matching"])


@every([row for row in ROWS if row.start])
def test_training_starts_at_the_base_model_bit_for_bit(row):
    transformer, method = installed(row, awake=False)
    batch = row.batch()
    state = state_of(method, batch)
    ours = video_of(method.velocity(transformer, batch)(state, SIGMA))
    method.uninstall()
    assert torch.equal(ours, row.start(transformer, batch, state))


@every(ROWS)
def test_the_source_and_every_input_reach_the_target(row):
    transformer, method = installed(row)
    batch = row.batch()
    # A method that derives a video of the source may read that instead.
    others = [] if method.derived else [replace(batch, source_BCFHW=batch.source_BCFHW + 1)]
    for each in (*row.kind.inputs, *method.derived):
        changed = {**batch.conditions, each.name: 1 - batch.conditions[each.name]}
        others.append(replace(batch, conditions=changed))
    state = state_of(method, batch)
    plain = video_of(method.velocity(transformer, batch)(state, SIGMA))
    for other in others:
        assert (video_of(method.velocity(transformer, other)(state, SIGMA)) - plain).abs().max() > 1e-4


@every(ROWS)
def test_the_text_changes_the_velocity(row):
    transformer, method = installed(row)
    batch = row.batch()
    known, state = method.condition(transformer, batch), state_of(method, batch)
    other = replace(batch, text_BTD=batch.text_BTD.flip(0))
    one, two = (video_of(method.velocity(transformer, each, known)(state, SIGMA)) for each in (batch, other))
    assert not torch.allclose(one, two)


@every(ROWS)
def test_samples_do_not_mix(row):
    transformer, method = installed(row)
    batch = row.batch()
    state = state_of(method, batch)
    together = method.velocity(transformer, batch)(state, SIGMA)
    for number in range(2):
        rows = slice(number, number + 1)
        of_row = tree_map(lambda x, rows=rows: x[rows], state)
        velocity = method.velocity(transformer, part_of(batch, rows))(of_row, SIGMA[rows])
        for alone, all_of_them in zip(tree_leaves(velocity), tree_leaves(together), strict=True):
            torch.testing.assert_close(alone, all_of_them[rows], rtol=1e-4, atol=1e-5)


@every(ROWS)
@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 6, 2), (5, 2, 4)], ids=str)
def test_any_shape_runs(row, shape):
    transformer, method = installed(row)
    batch = row.batch(1, *shape)
    state = state_of(method, batch)
    velocity = method.velocity(transformer, batch)(state, SIGMA[:1])
    for v, x in zip(tree_leaves(velocity), tree_leaves(state), strict=True):
        assert v.shape == x.shape and v.isfinite().all()


@every(ROWS)
@pytest.mark.parametrize(
    "config", [{"patch_size": (1, 1, 1)}, {"patch_size": (3, 2, 2)}, {"num_attention_heads": 3}], ids=str
)
def test_any_transformer_will_do(row, config):
    if "num_attention_heads" in config and row.options.get("heads"):
        row = replace(row, options=row.options | {"heads": [[1, 0, 1], [0, 1, 0]]})
    transformer, method = installed(row, **config)
    assert total(method.losses(transformer, row.batch())).isfinite()


@every(ROWS)
def test_gradient_checkpointing_gives_the_same_gradients(row):
    transformer, method = installed(row)
    gradients = []
    for _ in range(2):
        method.zero_grad()
        total(method.losses(transformer, row.batch(), torch.Generator().manual_seed(0))).backward()
        gradients.append([parameter.grad.clone() for parameter in method.parameters()])
        transformer.enable_gradient_checkpointing()
    assert all(torch.equal(plain, again) for plain, again in zip(*gradients, strict=True))


@every(ROWS)
def test_mixed_precision_trains(row):
    transformer, method = installed(row)
    full = total(method.losses(transformer, row.batch(), torch.Generator().manual_seed(0)))
    transformer.to(torch.bfloat16)
    method.to(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = total(method.losses(transformer, row.batch(), torch.Generator().manual_seed(0)))
    loss.backward()
    torch.testing.assert_close(loss, full, rtol=0.1, atol=0.1)
    assert all(parameter.grad.dtype == torch.float32 for parameter in method.parameters())


@every(ROWS)
def test_a_window_of_all_frames_is_the_edit_itself_and_a_part_is_cut_alike(row):
    _, method = installed(row)
    batch = row.batch(1, 5)
    whole, part = (method.window(batch, frames, 4) for frames in (slice(0, 5), slice(1, 4)))
    for name in batch.conditions:
        assert torch.equal(whole.conditions[name], batch.conditions[name])
    assert torch.equal(part.source_BCFHW, batch.source_BCFHW[:, :, 1:4])
    for each in row.kind.inputs:
        value, cut = batch.conditions[each.name], part.conditions[each.name]
        if each.kind == "mask":
            assert torch.equal(cut, value[:, :, 4:13])  # latent frames 1 to 3 stand for frames up to 12
        elif each.kind == "image":
            assert torch.equal(cut, value)


@every(ROWS)
def test_units_hold_all_that_is_trained(row):
    transformer, method = installed(row)
    trained = {id(parameter) for parameter in method.parameters()}
    of_units = [id(parameter) for unit in method.shard_units() for parameter in unit.parameters()]
    assert len(of_units) == len(set(of_units)) and set(of_units) == trained
    inside = {id(parameter) for parameter in transformer.parameters()}
    of_apart = {id(parameter) for part in method.apart() for parameter in part.parameters()}
    assert of_apart == trained - inside
    assert method.working_bytes(20) == 2 * method.working_bytes(10)
    for gauge, to_share in method.gauges().values():
        assert any(gauge is module for module in method.modules())
        assert ((to_share(torch.tensor([0.1])) > 0) & (to_share(torch.tensor([0.1])) < 1)).all()


@every(ROWS)
def test_the_settings_rebuild_the_method(row):
    _, method = installed(row)
    settings = json.loads(json.dumps(method.config()))
    assert row.options.items() <= settings.items()
    _, again = installed(replace(row, options=settings), awake=False)
    assert again.config() == method.config()
    again.load_state_dict(method.state_dict(), strict=True)


@every(ROWS)
def test_uninstalling_gives_the_backbone_back(row):
    pristine = tiny_transformer(**row.config).state_dict()
    transformer, method = installed(row)
    if method.trains_backbone:  # it stays as it was trained
        pristine |= {name: weight.clone() for name, weight in transformer.state_dict().items()}
    method.uninstall()
    method.uninstall()
    assert list(method.parameters()) == []
    state = transformer.state_dict()
    assert list(state) == list(pristine)
    assert all(torch.equal(state[name], weight) for name, weight in pristine.items())
    assert "forward" not in vars(transformer)
    method.install(transformer)
    with pytest.raises(RuntimeError, match="installed already"):
        method.install(transformer)


@every(ROWS)
def test_the_adapter_registers_only_what_it_trains(row):
    _, method = installed(row)
    assert all(parameter.requires_grad for parameter in method.parameters())
    assert method.state_dict().keys() == {name for name, _ in method.named_parameters()}
    if row.options.get("adapter") == "lora":
        inherited = [name for name in method.state_dict() if "attention" in name or "attn" in name]
        assert inherited and all("delta" in name for name in inherited)


def test_the_core_knows_no_method_by_name():
    core = ("training/task", "training/data_module", "editing/pipeline", "editing/denoiser", "methods/adapter_file")
    names = {word for kind in METHODS.values() for word in (kind.name, kind.__name__)}
    for file in core:
        words = set(re.findall(r"\w+", (CHECKOUT / f"imvideoedit/{file}.py").read_text()))
        assert len(words) > 100 and not words & names, file
