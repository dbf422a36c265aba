"""SAMA: its sequence, its losses, guidance, released weights and sizes, by hand-made cases."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import EditBatch
from imvideoedit.editing.denoiser import Denoiser
from imvideoedit.editing.inputs import check_names
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.flow.guidance import Guidance
from imvideoedit.methods import semantic_tokens
from imvideoedit.methods.adapter_file import load_adapter, save_adapter
from imvideoedit.methods.adapter_header import AdapterHeader
from imvideoedit.methods.block_lora import SELF_ATTENTION
from imvideoedit.methods.sama import Sama
from imvideoedit.methods.sama_weights import import_weights, main, named_as_here
from imvideoedit.methods.semantic_tokens import TOKENS, Siglip, pooled
from imvideoedit.training.estimate import Setting, estimate
from imvideoedit.training.flops import Pairs, useful_flops
from imvideoedit.training.strategies import fsdp2
from imvideoedit.wan.backbone import Backbone, load_backbone, parameter_hash
from imvideoedit.wan.bases import WAN_14B, meta_transformer
from imvideoedit.wan.forward import embed, modulation, run_blocks, unembed
from tests.conftest import TINY_TRANSFORMER, awaken, tiny_batch, tiny_transformer

SIGMA = torch.tensor([0.3, 0.8])
WIDTH = 8
# Wan2.2 TI2V 5B: 48 channels, 30 blocks of 3072.
WAN_5B = {"num_attention_heads": 24, "num_layers": 30, "ffn_dim": 14336, "in_channels": 48, "out_channels": 48}


def token_batch(**options) -> EditBatch:
    plain = tiny_batch(**options)
    tokens = torch.randn(len(plain.source_BCFHW), TOKENS, WIDTH, generator=torch.Generator().manual_seed(4))
    return replace(plain, labels={"semantic": tokens})


def installed(awake=True, config=None, **options):
    transformer = tiny_transformer(**(config or {}))
    method = Sama(**{"rank": 4, "width": WIDTH, "hidden": 12} | options)
    torch.manual_seed(0)
    method.install(transformer)
    if awake:
        awaken(method)
    return transformer, method


def state(seed=3, batch=2):
    generator = torch.Generator().manual_seed(seed)
    video = torch.randn(batch, 4, 3, 4, 6, generator=generator)
    return {"video": video, "semantic": torch.randn(batch, TOKENS, WIDTH, generator=generator)}


# The sequence.


def test_the_pass_is_the_whole_transformer_on_source_tokens_and_target():
    transformer, method = installed(awake=False)
    batch, x = token_batch(), state()
    found = method.velocity(transformer, batch)(x, SIGMA)
    time, rows, text = modulation(transformer, 1000 * SIGMA, batch.text_BTD)
    source, target = (embed(transformer, latents) for latents in (batch.source_BCFHW, x["video"]))
    tables = transformer.rope(x["video"])
    still = torch.ones(1, TOKENS, 1, 12), torch.zeros(1, TOKENS, 1, 12)
    rotary = tuple(torch.cat([own, middle, own], 1) for own, middle in zip(tables, still, strict=True))
    hidden = run_blocks(transformer, torch.cat([source, method.project(x["semantic"]), target], 1), text, rows, rotary)
    assert torch.equal(found["video"], unembed(transformer, hidden[:, -18:], time, x["video"].shape))
    assert torch.equal(found["semantic"], method.head(hidden[:, 18 : 18 + TOKENS]))


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_source_and_target_change_places_under_zero_type_embeddings(adapter):
    transformer, method = installed(adapter=adapter)
    batch, x = token_batch(), state()
    swapped = replace(batch, source_BCFHW=x["video"]), x | {"video": batch.source_BCFHW}

    def hidden(edits, at):
        seen = []
        hook = transformer.blocks[-1].register_forward_hook(lambda block, args, output: seen.append(output))
        method.velocity(transformer, edits)(at, SIGMA)
        hook.remove()
        return seen[0].split([18, TOKENS, 18], 1)

    with torch.no_grad():
        for weight, equal in ((0.0, True), (1.0, False)):
            method.types.weight.copy_(weight * torch.randn(3, 24, generator=torch.Generator().manual_seed(0)))
            one, other = hidden(batch, x), hidden(*swapped)
            alike = [torch.allclose(a, b, atol=1e-4) for a, b in zip(one, reversed(other), strict=True)]
            assert alike == [equal] * 3


def test_shifted_positions_tell_source_from_target_without_types():
    transformer, method = installed(roles="shift")
    assert "types" not in dict(method.named_children())
    batch, x = token_batch(), state()
    with torch.no_grad():
        one = method.velocity(transformer, batch)(x, SIGMA)
        same = method.velocity(transformer, replace(batch, source_BCFHW=x["video"]))(x, SIGMA)
    assert not torch.allclose(one["video"], same["video"])
    tables, behind = method._tables(transformer, x["video"])
    stock = transformer.rope(torch.zeros(1, 4, 6, 4, 6))
    assert torch.equal(torch.cat([tables[0], behind[0]], 1), stock[0])


def test_semantic_tokens_of_the_released_weights_attend_uniformly():
    transformer, method = installed(sem_rope="zero")
    scores = []
    kept = torch.nn.functional.scaled_dot_product_attention

    def watched(query, key, value, *args, **options):
        scores.append((query @ key.transpose(-1, -2)).detach())
        return kept(query, key, value, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
        method.velocity(transformer, token_batch())(state(), SIGMA)
    own = [s for s in scores if s.shape[-1] == s.shape[-2]]
    assert len(own) == 2
    for s in own:
        tokens = slice(18, 18 + TOKENS)
        assert s[..., tokens, :].abs().max() == 0 and s[..., :, tokens].abs().max() == 0
        assert s[..., :18, :18].abs().max() > 0.01


# The semantic branch.


def test_the_tokens_have_the_videos_own_noise_level():
    _, method = installed()
    batch = token_batch()
    point, sigma_B, _ = method.training_point(batch, torch.Generator().manual_seed(0))
    clean, sigma = batch.labels["semantic"], sigma_B[:, None, None]
    noise = (point.x_BCFHW["semantic"] - (1 - sigma) * clean) / sigma
    assert torch.allclose(point.velocity_BCFHW["semantic"], noise - clean, atol=1e-4)
    assert 0.9 < noise.std() < 1.1
    video = (point.x_BCFHW["video"] - (1 - sigma[..., None, None]) * batch.target_BCFHW) / sigma[..., None, None]
    assert torch.allclose(point.velocity_BCFHW["video"], video - batch.target_BCFHW, atol=1e-4)


def test_without_a_weight_no_gradient_reaches_the_head_and_a_perfect_velocity_costs_nothing():
    transformer, method = installed(weight=0.0)
    losses = method.losses(transformer, token_batch(), torch.Generator().manual_seed(0))
    assert losses.keys() == {"flow_matching"}
    losses["flow_matching"].mean().backward()
    assert all(p.grad is None for p in method.head.parameters()) and method.project.fc1.weight.grad is not None
    transformer, method = installed(weight=0.5)
    batch = token_batch()
    point = method.training_point(batch, torch.Generator().manual_seed(0))
    perfect = {name: value.clone() for name, value in point[0].velocity_BCFHW.items()}
    method.__dict__["predicted"] = lambda *args: perfect
    losses = method.losses_at(transformer, batch, *point)
    assert losses["semantic"].abs().max() == 0 and losses["flow_matching"].abs().max() == 0
    perfect["semantic"] = perfect["semantic"] + 0.25
    assert torch.allclose(method.losses_at(transformer, batch, *point)["semantic"], torch.tensor([0.125, 0.125]))


def test_the_projected_target_has_a_stop_gradient():
    transformer, method = installed(sem_target="x0_projected")
    point, *_ = method.training_point(token_batch(), torch.Generator().manual_seed(0))
    assert not point.velocity_BCFHW["semantic"].requires_grad and point.x_BCFHW["semantic"].requires_grad
    assert method.initial(token_batch(), torch.Generator())["semantic"].shape == (2, TOKENS, 24)
    # The sampler's velocity leads to what the head predicts.
    x = method.initial(token_batch(), torch.Generator().manual_seed(0))
    with torch.no_grad():
        v = method.velocity(transformer, token_batch())(x, SIGMA)["semantic"]
        clean = method.predicted(transformer, *_sides(token_batch()), x, SIGMA)["semantic"]
    assert torch.allclose(x["semantic"] - SIGMA[:, None, None] * v, clean, atol=1e-5)


def _sides(batch):
    return batch.source_BCFHW, batch.text_BTD


def test_regions_are_pooled_by_row_and_column_with_the_whole_behind():
    grid = torch.arange(16.0)[:, None] * 16 + torch.arange(16.0)
    tokens = pooled(grid.reshape(1, 256, 1))
    assert tokens.shape == (1, TOKENS, 1)
    assert tokens[0, 1, 0] == grid[:2, 2:4].mean() and tokens[0, 8, 0] == grid[2:4, :2].mean()
    assert torch.isclose(tokens[0, -1, 0], grid.mean())


def test_training_labels_are_of_the_anchor_by_siglip_and_costs_need_none(tmp_path):
    from transformers import SiglipVisionConfig, SiglipVisionModel

    sizes = {"hidden_size": WIDTH, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tower = SiglipVisionModel(SiglipVisionConfig(image_size=32, patch_size=4, **sizes)).eval()
    tower.save_pretrained(tmp_path)
    method = Sama(width=WIDTH, hidden=12, siglip=str(tmp_path))
    anchor = torch.rand(2, 3, 1, 48, 48) * 2 - 1
    batch = replace(tiny_batch(), conditions={"anchor": anchor})
    tokens = method.labelled(batch).labels["semantic"]
    assert tokens.shape == (2, TOKENS, WIDTH) and not tokens.requires_grad
    exact = method.labelled(replace(batch, conditions={"anchor": torch.full((2, 3, 1, 32, 32), 0.5)}))
    with torch.no_grad():
        wanted = pooled(tower(pixel_values=torch.full((2, 3, 32, 32), 0.5)).last_hidden_state)
    assert torch.allclose(exact.labels["semantic"], wanted, atol=1e-5)
    assert method.labelled(exact) is exact, "labels that are there are kept"
    with pytest.raises(UserError, match="has 8; set it to that"):
        Siglip(str(tmp_path), 9)(anchor[:, :, 0])
    with pytest.raises(UserError, match="there is no SigLIP at"):
        Siglip(str(tmp_path / "none"), 8)(anchor[:, :, 0])
    counted = Pairs(1, 4, 6, text=5).batch_of(tiny_transformer().config, Sama(width=WIDTH), "cpu", torch.float32)
    assert counted.labels["semantic"].shape == (1, TOKENS, WIDTH)
    with pytest.raises(ValueError, match="labelled"):
        Sama(width=WIDTH).training_point(tiny_batch())


# Sampling.


def test_both_are_sampled_and_each_scale_of_guidance_counts_from_the_edit():
    transformer, method = installed()
    method.eval().requires_grad_(False)
    batch = replace(token_batch(batch=1), target_BCFHW=None, labels={}, empty_TD=torch.zeros(5, 16))
    config = SamplingConfig(steps=3, guidance=4.0, source_guidance=2.0, shift=3.0)
    edited = Denoiser(transformer, method, 3.0, 4, config)(batch, seed=0)
    assert edited.shape == batch.source_BCFHW.shape and edited.isfinite().all()
    branches = method.branches(transformer, batch, None)
    x, sigma = state(batch=1), torch.tensor([0.5])
    v = {name: own(x, sigma) for name, own in branches.items()}
    guided = method.guide(v.__getitem__, Guidance(text=4.0, source=2.0))
    for part in ("video", "semantic"):
        whole, no_source, no_text = (v[name][part] for name in ("edit", "without_source", "without_text"))
        wanted = whole + 1.0 * (whole - no_source) + 3.0 * (whole - no_text)
        assert torch.allclose(guided[part], wanted, atol=1e-5)
        assert not torch.allclose(whole, no_source) and not torch.allclose(whole, no_text)
    asked = []
    method.guide(lambda name: asked.append(name) or v[name], Guidance())
    assert asked == ["edit"]


def test_text_guidance_alone_is_the_usual_one():
    _, method = installed()
    v = {"edit": {"video": torch.tensor(2.0)}, "without_text": {"video": torch.tensor(1.0)}}
    assert method.guide(v.__getitem__, Guidance(text=5.0))["video"] == 1.0 + 5.0 * (2.0 - 1.0)


def test_the_sampler_needs_no_siglip(tmp_path, monkeypatch):
    transformer, method = installed(adapter="lora", siglip="nowhere/at-all")
    file = tmp_path / "sama.safetensors"
    backbone = Backbone("tiny", "r1", transformer, None, None, None, 5.0)
    save_adapter(method, file, AdapterHeader.describe(method, backbone, {"sampler": {}}))

    def missing(place):
        raise ImportError(f"SigLIP is not installed, but {place} is wanted")

    monkeypatch.setattr(semantic_tokens, "load_siglip", missing)
    monkeypatch.setitem(sys.modules, "transformers.models.siglip.modeling_siglip", None)
    again = tiny_transformer()
    denoiser = Denoiser(again, load_adapter(file, again), 5.0, 4, SamplingConfig(steps=2, guidance=1.0))
    assert denoiser(tiny_batch(1), 0).shape == (1, 4, 3, 4, 6)


def test_texts_have_the_prefix_and_the_negative_prompt_is_it_alone():
    plain, prefixed = Sama(width=WIDTH), Sama(width=WIDTH, prefix="[Video edit]")
    assert plain.prompt("make it red") == "make it red" and plain.prompt("") == ""
    assert prefixed.prompt("make it red") == "[Video edit] make it red" and prefixed.prompt("") == "[Video edit]"
    frame = np.zeros((1, 4, 4, 3), np.uint8)
    example = {"source": frame, "target": frame, "prompt": "go"}
    assert prefixed.transform(example, np.random.default_rng(0))["prompt"] == "[Video edit] go"
    assert not plain.changes_examples and prefixed.changes_examples and Sama.reads_instructions


# What is trained, saved and loaded.


def test_a_full_adapter_holds_the_backbone_and_loads_into_that_it_was_trained_from_alone(tmp_path):
    transformer, method = installed(awake=False)
    before = parameter_hash(transformer)
    awaken(method)
    backbone = Backbone("tiny", "r1", transformer, None, None, None, 5.0)
    with pytest.raises(ValueError, match="what it was before"):
        AdapterHeader.describe(method, backbone, {})
    file = tmp_path / "a.safetensors"
    save_adapter(method, file, AdapterHeader.describe(method, backbone, {"sampler": {}}, before))
    expected = method.velocity(transformer, token_batch())(state(), SIGMA)
    again = tiny_transformer()
    loaded = load_adapter(file, again)
    found = loaded.velocity(again, token_batch())(state(), SIGMA)
    assert torch.equal(found["video"], expected["video"]) and torch.equal(found["semantic"], expected["semantic"])
    names = {name.removeprefix("backbone.") for name in loaded.state_dict() if name.startswith("backbone.")}
    assert names == set(tiny_transformer().state_dict())
    loaded.uninstall()
    with pytest.raises(UserError, match="load the backbone it was trained in"):
        load_adapter(file, again)


def test_lora_leaves_the_cross_attention_as_it_is():
    transformer, method = installed(adapter="lora")
    assert {name for block in method.lora for name in block.deltas} == {
        *(name.replace(".", "_") for name in SELF_ATTENTION),
        "ffn_net_0_proj",
        "ffn_net_2",
    }
    assert not any(p.requires_grad for p in transformer.parameters())


def test_fsdp2_refuses_to_train_a_backbone_in_one_line():
    _, method = installed()
    with pytest.raises(UserError, match="fsdp2 cannot train all of a backbone.*zero2"):
        fsdp2().shard(method, "32-true")


@pytest.mark.parametrize(("config", "billions", "frozen"), [(WAN_14B, 14.29, 0.0), (WAN_5B, 5.0, 0.0)])
def test_sizes_of_wan_on_meta(config, billions, frozen):
    transformer = meta_transformer(config)
    own = sum(p.numel() for p in transformer.parameters())
    method = Sama()
    method.install(transformer)
    trained = sum(p.numel() for p in method.parameters())
    inner = transformer.config.num_attention_heads * 128
    branch = 2 * 1152 + 1152 * 1024 + 1024 + 1024 * inner + inner + 2 * inner + inner * 1152 + 1152
    assert trained - own == branch + 3 * inner
    assert abs(own / 1e9 - billions) < 0.02
    assert sum(p.numel() for p in transformer.parameters() if not p.requires_grad) == frozen


def test_costs_of_all_of_a_backbone_are_counted_once(monkeypatch):
    monkeypatch.setattr("imvideoedit.training.estimate.activation_bytes", lambda *args: 0)
    config, pairs = TINY_TRANSFORMER | {"num_layers": 4}, Pairs(1, 4, 6, text=5, frames=3)
    full = Sama(width=WIDTH, hidden=12)
    parts = estimate(config, full, Setting("single", 1, 8, True, pairs))
    own = sum(p.numel() for p in tiny_transformer(num_layers=4).parameters())
    assert parts["frozen weights"] == 0 and 4 * own < parts["trained weights"] < 4 * own + 20_000
    assert useful_flops(config, full, pairs.batch_of(config, full, "cpu", torch.float32)) > 0


# Released weights.


def wans_own(transformer):
    """A transformer's tensors by the names of Wan's own code."""
    names = {
        "condition_embedder.time_embedder.linear_1": "time_embedding.0",
        "condition_embedder.time_embedder.linear_2": "time_embedding.2",
        "condition_embedder.text_embedder.linear_1": "text_embedding.0",
        "condition_embedder.text_embedder.linear_2": "text_embedding.2",
        "condition_embedder.time_proj": "time_projection.1",
        "proj_out": "head.head",
        "attn1": "self_attn",
        "attn2": "cross_attn",
        "to_out.0": "o",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
        "ffn.net.0.proj": "ffn.0",
        "ffn.net.2": "ffn.2",
        "norm2": "norm3",
    }
    found = {}
    for name, tensor in transformer.state_dict().items():
        table = "head.modulation" if name == "scale_shift_table" else name.replace("scale_shift_table", "modulation")
        for here, there in names.items():
            table = table.replace(here, there)
        found[table] = tensor.contiguous()
    return found


def released(seed=5):
    """Weights as a release has them, and what they are here."""
    other, method = installed(awake=False, config={})
    awaken(method, seed)
    own = {name: value for name, value in method.state_dict().items() if not name.startswith("backbone.")}
    parts = {"types.": "segment_embedding.", "project.": "siglip_feat_mlp.", "head.": "semantic_head."}
    named = {}
    for name, value in own.items():
        here = next(part for part in parts if name.startswith(part))
        named[parts[here] + name.removeprefix(here)] = value
    return named | wans_own(other), method.state_dict()


def tiny_backbone():
    return Backbone("tiny", None, tiny_transformer(), None, None, None, 5.0)


def test_released_weights_become_an_adapter_by_name(tmp_path, capsys):
    tensors, wanted = released()
    assert "blocks.0.self_attn.q.weight" in tensors and "head.modulation" in tensors
    found = named_as_here(dict(tensors))
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    half = len(tensors) // 2
    items = list(tensors.items())
    for number, part in enumerate((items[:half], [*items[half:], ("extra.weight", torch.zeros(1))])):
        save_file({name: value.clone() for name, value in part}, tmp_path / f"{number}.safetensors")
    files = [tmp_path / "0.safetensors", tmp_path / "1.safetensors"]
    import_weights(files, tiny_backbone(), tmp_path / "sama.safetensors", "[Video edit]")
    assert "not used: 1 tensors that SAMA does not have (as backbone.extra.weight)" in capsys.readouterr().out
    loaded = load_adapter(tmp_path / "sama.safetensors", tiny_transformer())
    assert loaded.config()["sem_rope"] == "zero" and loaded.prompt("") == "[Video edit]"
    assert all(torch.equal(value, wanted[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("semantic_head.proj.weight"), r"1 tensors lacking \(as head.proj.weight\)"),
        (
            lambda t: t.update({"patch_embedding.bias": torch.zeros(7)}),
            r"1 tensors of another shape \(as backbone.patch",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path, change, words):
    tensors, _ = released()
    change(tensors)
    file = tmp_path / "weights.safetensors"
    save_file({name: value.clone() for name, value in tensors.items()}, file)
    with pytest.raises(UserError, match=f"do not fit tiny: {words}") as refused:
        import_weights([file], tiny_backbone(), tmp_path / "out.safetensors", "")
    assert "\n" not in str(refused.value) and not (tmp_path / "out.safetensors").exists()


def test_weights_of_another_size_cost_the_command_one_line(tmp_path, capsys):
    tensors, _ = released()
    file = tmp_path / "weights.safetensors"
    save_file({name: value.clone() for name, value in tensors.items()}, file)
    with pytest.raises(SystemExit) as ended:
        main([str(file), "--backbone", "nano", "--output", str(tmp_path / "out.safetensors")])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and "do not fit nano" in error and len(error.strip().splitlines()) == 1


# Bad input.


@pytest.mark.parametrize(
    "wrong",
    [{"adapter": "half"}, {"sem_target": "x1"}, {"sem_rope": "one"}, {"roles": "none"}, {"rank": 0}, {"weight": -1.0}],
    ids=json.dumps,
)
def test_options_out_of_their_range_are_refused(wrong):
    with pytest.raises(UserError, match=f"method.{next(iter(wrong))} is"):
        Sama(**wrong)


def test_inputs_that_it_does_not_take_are_refused_in_one_line():
    for name in ("first_frame", "anchor"):
        with pytest.raises(UserError, match=f"does not know the input {name}; it takes none"):
            check_names(Sama.inputs, [name], "the adapter sama.safetensors")
    with pytest.raises(UserError, match="this one has 8; give another backbone"):
        Sama().install(tiny_transformer(in_channels=8))


def test_a_strength_below_one_is_refused():
    transformer, method = installed()
    denoiser = Denoiser(transformer, method, 3.0, 4, SamplingConfig(steps=2, guidance=1.0, strength=0.5))
    with pytest.raises(UserError, match="strength below 1"):
        denoiser(tiny_batch(1), 0)


def test_the_nano_backbone_takes_it():
    backbone = load_backbone("nano", device="cpu", parts=())
    before = backbone.parameter_hash()
    method = Sama(width=64, hidden=64)
    method.install(backbone.transformer)
    assert method.trains_backbone and parameter_hash(backbone.transformer) == before
