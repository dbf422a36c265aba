"""What an edit keeps of the source follows from a budget, is as large as planned, and changes nothing in the edit."""

import math

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from imvideoedit.benchmark.gpu_rows import edit_pass
from imvideoedit.benchmark.launches import gpu_kernels
from imvideoedit.common.errors import UserError
from imvideoedit.editing.denoiser import Denoiser
from imvideoedit.editing.memory import free_bytes, held_bytes, needs
from imvideoedit.editing.model_options import stated_bytes
from imvideoedit.editing.offload import Placement
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.methods.in_context import InContext
from imvideoedit.methods.keep_plan import BlockBytes, KeepPlan, plan_keeping
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.training.flops import Pairs, make_fake, random_transformer, step_peak
from imvideoedit.video.geometry import fit_size
from imvideoedit.wan.bases import WAN_1_3B
from imvideoedit.wan.forward import pass_bytes
from imvideoedit.wan.streaming_vae import coding_bytes, decode_parts, encode_parts
from tests.conftest import awaken, tiny_batch, tiny_transformer
from tests.test_memory import loaded

MIB = 2**20
SIZES = [BlockBytes(10, 40)] * 4
METHODS = [AlignedUpdate(), PredictUpdate(), PredictUpdate(source_stream="joint"), InContext()]
PLANS = [
    None,
    KeepPlan(),
    KeepPlan(("recorded", "recorded")),
    KeepPlan(("prepared", "recorded")),
    KeepPlan(("host", "prepared")),
    KeepPlan(("host", "host")),
]


@pytest.mark.parametrize(
    ("room", "host", "places"),
    [
        (200, 0, ["prepared"] * 4),  # 160, and 40 for what one block prepares meanwhile
        (199, 0, ["prepared"] * 3 + ["recorded"]),
        (110, 0, ["prepared"] + ["recorded"] * 3),
        (109, 0, ["recorded"] * 4),
        (79, 10, ["recorded"] * 3 + ["host"]),
        (0, 40, ["host"] * 4),
        (79, 9, None),
        (0, 0, None),
    ],
)
def test_the_plan_keeps_most_of_what_fits(room, host, places):
    plan = plan_keeping(SIZES, room, host)
    assert plan == (None if places is None else KeepPlan(tuple(places)))
    if plan is not None:
        words = plan.describe(4)
        assert all(f"in {places.count(place)} of 4 blocks" in words for place in set(places))
        assert plan.everything == (room == 200)


@given(
    st.lists(st.builds(BlockBytes, st.integers(1, 50), st.integers(1, 200)), max_size=6),
    st.floats(0, 2000),
    st.floats(0, 300),
    st.integers(1, 5),
)
def test_a_plan_stays_within_its_budgets(sizes, room, host, windows):
    plan = plan_keeping(sizes, room, host, windows)
    if plan is None:
        assert windows * sum(size.recorded for size in sizes) > host
        return
    most = max((size.prepared for size in sizes), default=0)
    kept = plan.device_bytes(sizes)
    assert kept == 0 or windows * kept + most <= room + 1e-6 or kept < sum(size.recorded for size in sizes)
    moved = sum(size.recorded for index, size in enumerate(sizes) if sizes and plan.of_block(index) == "host")
    assert windows * moved <= host + 1e-6


@pytest.mark.parametrize("kind", [AlignedUpdate, PredictUpdate])
@pytest.mark.parametrize("tokens", [12, 8000])
def test_all_plans_give_the_same_edit_to_the_bit(kind, tokens, monkeypatch):
    """Two windows, with guidance, in parts of two frames or whole; what is kept has the planned places and sizes."""
    monkeypatch.setattr("imvideoedit.methods.two_stream_processor.PART_TOKENS", tokens)
    transformer, method = tiny_transformer(), kind()
    method.install(transformer)
    awaken(method)
    whole = tiny_batch(1, 5)
    batch = type(whole)(whole.source_BCFHW, None, whole.text_BTD, empty_TD=0.5 * whole.text_BTD[0])
    config = SamplingConfig(max_frames=13, overlap=4, steps=3, guidance=3.0)
    sizes = method.feature_bytes(4 * 6)  # of a window of four latent frames
    results, kept = [], []
    condition = method.condition
    monkeypatch.setattr(method, "condition", lambda *args: kept.append(condition(*args)) or kept[-1])
    for plan in PLANS:
        kept.clear()
        results.append(Denoiser(transformer, method, 3.0, 4, config, plan)(batch, 0))
        assert torch.equal(results[0], results[-1])
        assert len(kept) == (2 if plan else 2 * 3)  # two windows; anew at each step where nothing is kept
        for features in kept if plan else ():
            places = {index: plan.of_block(index) for index in range(2)}
            for index, place in places.items():
                assert (index in features.prepared) == (place == "prepared")
                assert (index in features.recorded) == (place != "prepared")
            on_device = [features.prepared, *(features.recorded[i] for i in places if places[i] == "recorded")]
            counted = sum(tensor.nbytes for tensor in tree_leaves(on_device) if tensor is not None)
            assert counted == plan.device_bytes(sizes)


@pytest.mark.parametrize("kind", [AlignedUpdate, PredictUpdate])
def test_what_is_kept_has_the_backbones_dtype(kind):
    transformer, method = tiny_transformer().to(torch.bfloat16), kind()
    method.install(transformer, torch.bfloat16)
    awaken(method)
    batch = tiny_batch(1)
    features = method.condition(transformer, batch, KeepPlan(("prepared", "recorded")))
    with torch.no_grad():
        method.velocity(transformer, batch, features)(batch.source_BCFHW, torch.tensor([0.5]))
    tensors = [tensor for tensor in tree_leaves((features.prepared, features.recorded)) if tensor is not None]
    assert {tensor.dtype for tensor in tensors} == {torch.bfloat16}
    sizes = method.feature_bytes(3 * 6)
    assert sum(tensor.nbytes for tensor in tensors) == sizes[0].prepared + sizes[1].recorded


def amounts(pipeline: EditPipeline, tokens: int, pixels: int) -> dict[str, float]:
    """Budgets in MiB that have room for what is prepared of some blocks, and of none."""
    needed = needs(pipeline.backbone, pipeline.method, tokens, pixels)
    fixed = needed.held("full") + needed.work + max(size.prepared for size in needed.features)
    recorded = sum(size.recorded for size in needed.features)
    more = sum(size.prepared for size in needed.features) - recorded
    return {name: (fixed + recorded + share * more) / MIB for name, share in (("some", 0.55), ("none", 0.001))}


def test_the_bundled_adapter_edits_alike_within_any_budget(caplog):
    video = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8)
    whole = EditPipeline.from_pretrained(device="cpu", memory="full")
    expected = whole(video, "turn it into noir style", steps=2, guidance=2.0).frames
    assert not caplog.records
    config = whole.config
    pixels = math.prod(fit_size(32, 32, config.max_area, whole.backbone.pixel_multiple))
    tokens = 3 * pixels // whole.backbone.pixel_multiple**2  # of three latent frames
    blocks = len(whole.backbone.transformer.blocks)
    for name, amount in amounts(whole, tokens, pixels).items():
        caplog.clear()
        pipeline = EditPipeline(whole.backbone, whole.method, config)
        pipeline.placement = Placement(whole.backbone, whole.method, torch.device("cpu"), f"{amount:.6f}MiB")
        pipeline.placement.level = "full"
        for _ in range(2):
            assert np.array_equal(pipeline(video, "turn it into noir style", steps=2, guidance=2.0).frames, expected)
        (line,) = [record.getMessage() for record in caplog.records]  # once, although there were two edits
        assert line.startswith("memory: full; ") and "GiB by estimate (weights " in line
        assert (f"computed anew at each step in {blocks} of {blocks} blocks" in line) == (name == "none")
        assert ("keys and values of the source kept in" in line) == (name == "some")


def test_the_texts_keys_and_values_are_computed_once_for_an_edit():
    transformer, method = tiny_transformer(), PredictUpdate()
    method.install(transformer)
    awaken(method)
    whole = tiny_batch(1, 5)
    batch = type(whole)(whole.source_BCFHW, None, whole.text_BTD, empty_TD=0.5 * whole.text_BTD[0])
    calls = []
    for block in method.blocks:
        block.gate.attention.to_k.register_forward_hook(lambda *_: calls.append(1))
    config = SamplingConfig(max_frames=13, overlap=4, steps=3, guidance=3.0)
    Denoiser(transformer, method, 3.0, 4, config)(batch, 0)
    assert len(calls) == 2 * 2 * 2  # blocks, windows, texts; not steps


def test_stacked_streams_compute_their_one_text_once():
    transformer, method = tiny_transformer(), PredictUpdate(source_stream="joint")
    method.install(transformer)
    awaken(method)
    rows = []
    method.blocks[0].gate.attention.to_k.register_forward_hook(lambda module, args, out: rows.append(len(args[0])))
    method.losses(transformer, tiny_batch())
    assert rows == [2]


def test_weights_count_once_and_the_adapters_are_among_them(wan_folder):
    backbone, method = loaded(wan_folder, AlignedUpdate())
    needed = needs(backbone, method, 10, 100)
    parts = {"transformer": [backbone.transformer, *method.apart()], "vae": [backbone.vae]}
    parts["text_encoder"] = [backbone.text_encoder]
    for name, modules in parts.items():
        tensors = {t.data_ptr(): t for module in modules for t in (*module.parameters(), *module.buffers())}
        assert needed.weights[name] == sum(tensor.nbytes for tensor in tensors.values())
    assert backbone.text_encoder.state_dict().keys() > dict(backbone.text_encoder.named_parameters()).keys()
    assert held_bytes(backbone.vae, "cuda") == 0


def test_what_the_allocator_holds_unused_counts_as_free(monkeypatch):
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (1000, 9000))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: 500)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: 200)
    assert free_bytes(torch.device("cuda")) == 1300


@pytest.mark.parametrize(
    ("text", "found"), [("20GiB", 20 * 2**30), ("1.5 gb", 1_500_000_000), ("300MiB", 300 * MIB), ("auto", None)]
)
def test_amounts_are_read(text, found):
    assert stated_bytes(text) == found


@pytest.mark.parametrize("text", ["20", "GiB", "-1GiB", "20TiB", "all", ""])
def test_other_words_are_refused_in_one_line(text):
    with pytest.raises(UserError, match="or an amount such as 20GiB"):
        stated_bytes(text)


@pytest.mark.parametrize("kind", ["wan", "nano"])
def test_the_autoencoder_takes_what_is_estimated(kind, bundled_pipeline):
    vae, side = bundled_pipeline.backbone.vae if kind == "nano" else AutoencoderKLWan(base_dim=8), 64
    latents = torch.randn(1, vae.config.z_dim, 6, *[side // vae.config.scale_factor_spatial] * 2)
    with torch.no_grad():
        counted = step_peak(lambda: [None for _ in decode_parts(vae, latents.split(2, dim=2))])
        pixels = torch.randn(1, 3, 21, side, side)
        parts = [pixels[:, :, :9], pixels[:, :, 9:17], pixels[:, :, 17:]]
        encoded = step_peak(lambda: [None for _ in encode_parts(vae, parts)])
    most = max(encoded, counted)
    assert most <= coding_bytes(vae, side * side) <= 1.25 * most


@pytest.mark.parametrize("method", METHODS, ids=["ours", "paper", "joint", "in_context"])
def test_a_pass_takes_what_is_estimated(method):
    """At Wan's width and 81 frames, on fake tensors."""
    with torch.device("meta"):
        transformer = random_transformer({**WAN_1_3B, "num_layers": 2}, torch.bfloat16)
    method.install(transformer, torch.bfloat16)
    with FakeTensorMode(), torch.no_grad(), gpu_kernels():
        for part in (transformer, method):
            make_fake(part)
        batch = Pairs(1, 60, 104, frames=21).batch_of(transformer.config, method, "cpu", torch.bfloat16)
        counted = step_peak(edit_pass(KeepPlan())(transformer, method, batch))
    tokens = 21 * 30 * 52
    estimated = pass_bytes(transformer, tokens) + method.working_bytes(tokens)
    assert counted <= estimated <= 1.3 * counted
