"""Every key and every entry of a LoRA file counts, or the file is refused in one line."""

import json
import logging

import pytest
import torch
from safetensors.torch import save_file

from imvideoedit.common.errors import UserError
from imvideoedit.editing.lora import fuse_lora
from imvideoedit.editing.lora_file import lora_hash
from imvideoedit.methods.adapter_file import adapter_hash
from tests.conftest import tiny_transformer

# How many keys are used is what test_lora_conventions.py tests.
pytestmark = pytest.mark.filterwarnings("ignore::imvideoedit.common.errors.Note")
PLACE, ORIGINAL = "transformer.blocks.0.attn1.to_q", "diffusion_model.blocks.0.self_attn.q"
WEIGHT = "blocks.0.attn1.to_q.weight"
DOWN, UP = torch.randn(4, 24, generator=torch.manual_seed(0)), torch.randn(24, 4, generator=torch.manual_seed(1))
PAIR = {f"{PLACE}.lora_A.weight": DOWN, f"{PLACE}.lora_B.weight": UP}
OTHER = {f"{ORIGINAL}.lora_A.weight": DOWN, f"{ORIGINAL}.lora_B.weight": UP}


@pytest.fixture
def fused(tmp_path):
    """Fuses tensors and metadata; returns what each parameter gained."""

    def fuse(tensors, metadata=None, name="lora.safetensors"):
        path = tmp_path / name
        save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, path, metadata)
        transformer = tiny_transformer()
        before = {key: tensor.clone() for key, tensor in transformer.named_parameters()}
        try:
            fuse_lora(transformer, path)
        except UserError as error:
            assert "\n" not in str(error) and str(path) in str(error)
            assert all(torch.equal(tensor, before[key]) for key, tensor in transformer.named_parameters())
            raise
        gained = {key: (tensor - before[key]).detach() for key, tensor in transformer.named_parameters()}
        return {key: gain for key, gain in gained.items() if gain.any()}

    return fuse


def config(**entries):
    return {"lora_adapter_metadata": json.dumps({f"transformer.{key}": value for key, value in entries.items()})}


@pytest.mark.parametrize(
    ("metadata", "factor"),
    [
        (None, 1),
        ({"format": "pt"}, 1),
        (config(r=4, lora_alpha=64), 16),
        (config(r=4, lora_alpha=8, use_rslora=True), 4),
        (config(r=4, lora_alpha=8, alpha_pattern={"attn1.to_q": 2}), 0.5),
        (config(r=4, lora_alpha=8, alpha_pattern={"attn1.to_k": 2}), 2),
        ({"lora_config": json.dumps({"r": 4, "lora_alpha": 2})}, 0.5),
        ({"ss_network_alpha": "2", "ss_network_dim": "4"}, 0.5),
        ({"ss_network_alpha": "None", "ss_tag_frequency": "{}"}, 1),
    ],
    ids=str,
)
def test_the_metadatas_alpha_scales_what_is_added(fused, metadata, factor):
    gained = fused(PAIR, metadata)
    assert gained.keys() == {WEIGHT}
    torch.testing.assert_close(gained[WEIGHT], factor * UP @ DOWN, rtol=1e-4, atol=1e-4)


WORDS = ("lora_A", "lora_B"), ("lora_down", "lora_up"), ("lora_A.default", "lora_B.default")
PLACES = (
    PLACE,
    ORIGINAL,
    ORIGINAL.removeprefix("diffusion_model."),
    "lora_unet_blocks_0_self_attn_q",
    "base_model.model.blocks.0.attn1.to_q",
)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("words", WORDS, ids=str)
def test_an_alpha_among_the_tensors_scales_any_form(fused, place, words):
    state = {f"{place}.{words[0]}.weight": DOWN, f"{place}.{words[1]}.weight": UP}
    torch.testing.assert_close(fused(state)[WEIGHT], UP @ DOWN, rtol=1e-4, atol=1e-4)
    gained = fused(state | {f"{place}.alpha": torch.tensor(64)})
    torch.testing.assert_close(gained[WEIGHT], 16 * UP @ DOWN, rtol=1e-4, atol=1e-4)


def test_pefts_config_next_to_the_weights_counts(fused, tmp_path):
    state = {key.replace("transformer", "base_model.model"): tensor for key, tensor in PAIR.items()}
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 12}))
    torch.testing.assert_close(
        fused(state, name="adapter_model.safetensors")[WEIGHT], 3 * UP @ DOWN, rtol=1e-4, atol=1e-4
    )


def test_differences_biases_and_convolutions_are_added(fused):
    own = dict(tiny_transformer().named_parameters())
    like = {name: torch.randn(own[name].shape, generator=torch.manual_seed(2)) for name in (
        "blocks.0.attn1.norm_q.weight", "blocks.0.norm2.weight", "blocks.0.norm2.bias", "blocks.0.attn1.to_q.bias",
        "proj_out.weight", "blocks.1.scale_shift_table",
    )}  # fmt: skip
    root = "diffusion_model."
    patch = own["patch_embedding.weight"]
    down, up = torch.randn(2, *patch.shape[1:]), torch.randn(len(patch), 2, 1, 1, 1)
    gained = fused(
        OTHER
        | {
            root + "blocks.0.self_attn.norm_q.diff": like["blocks.0.attn1.norm_q.weight"],
            root + "blocks.0.norm3.diff": like["blocks.0.norm2.weight"],  # the original's third is diffusers' second
            root + "blocks.0.norm3.diff_b": like["blocks.0.norm2.bias"],
            root + "blocks.0.self_attn.q.diff_b": like["blocks.0.attn1.to_q.bias"],
            root + "blocks.1.modulation.diff": like["blocks.1.scale_shift_table"],
            root + "head.head.diff": like["proj_out.weight"],
            root + "blocks.0.norm2.diff": torch.zeros(24),  # has no weights, and zeros change nothing
            root + "patch_embedding.lora_down.weight": down,
            root + "patch_embedding.lora_up.weight": up,
            root + "blocks.0.self_attn.q.alpha": torch.tensor(8.0),
        }
    )
    like[WEIGHT] = 2 * UP @ DOWN
    like["patch_embedding.weight"] = torch.einsum("orxyz,rcijk->ocijk", up, down)
    assert gained.keys() == like.keys()
    for name, wanted in like.items():
        torch.testing.assert_close(gained[name], wanted, rtol=1e-4, atol=1e-4)


def test_pefts_bias_is_scaled_with_its_pair_and_a_plain_one_is_not(fused):
    bias = torch.ones(24)
    for key, wanted in ((f"{PLACE}.lora_B.bias", 16), (f"{PLACE}.diff_b", 1)):
        gained = fused(PAIR | {key: bias, f"{PLACE}.alpha": torch.tensor(64.0)})
        torch.testing.assert_close(gained["blocks.0.attn1.to_q.bias"], wanted * bias, rtol=1e-4, atol=1e-4)


ELSEWHERE = "transformer.blocks.1.attn1.to_k"


@pytest.mark.parametrize(
    ("surplus", "words"),
    [
        ({f"{PLACE}.lora_magnitude_vector": torch.ones(24)}, "is a DoRA"),
        ({f"{PLACE}.lora_magnitude_vector.default.weight": torch.ones(24)}, "is a DoRA"),
        ({f"{PLACE}.dora_scale": torch.ones(24, 1)}, "is a DoRA"),
        ({f"{ELSEWHERE}.lora_A.weight": DOWN}, "without its lora_B"),
        ({f"{ELSEWHERE}.lora_B.weight": UP}, "without its lora_A"),
        ({f"{ELSEWHERE}.alpha": torch.tensor(1.0)}, "without its pair"),
        ({f"{PLACE}.lora_A.other.weight": DOWN}, "has both"),
        ({f"{PLACE}.hada_w1_a": DOWN}, "no LoRA of linear maps has"),
        ({f"{PLACE}.lokr_w1": DOWN, f"{PLACE}.lokr_w2": DOWN}, "2 keys such as"),
        ({f"{PLACE}.lora_mid.weight": DOWN}, "no LoRA of linear maps has"),
        ({f"{PLACE}.set_weight": torch.ones(24, 24)}, "no LoRA of linear maps has"),
        ({f"{ELSEWHERE}.diff": torch.ones(3)}, r"has \[24, 24\]"),
        ({f"{PLACE}.diff": torch.ones(24)}, "two shapes"),
        ({f"{PLACE}.alpha": torch.tensor(0.0)}, "alpha 0"),
        ({f"{PLACE}.alpha": torch.ones(2)}, r"the shape \[2\]"),
        ({f"{PLACE}.alpha": torch.tensor(float("inf"))}, "NaN or infinite values at .*alpha"),
        ({f"{PLACE}.lora_A.weight": DOWN * float("nan")}, "NaN or infinite values at .*lora_A"),
        ({f"{PLACE}.lora_A.weight": DOWN * 1e37, f"{PLACE}.lora_B.weight": UP * 1e37}, "makes .* infinite"),
        ({f"{PLACE}.lora_A.weight": DOWN.to(torch.int8)}, "no floats"),
        ({f"{PLACE}.lora_A.weight": DOWN.to(torch.complex64)}, "no floats"),
        ({f"{PLACE}.lora_A.weight": torch.tensor(1.0)}, "has no pair"),
        ({f"{PLACE}.lora_A.weight": torch.ones(4)}, "has no pair"),
        ({f"{PLACE}.lora_A.weight": torch.ones(5, 24)}, "has no pair"),
        ({f"{PLACE}.lora_A.weight": torch.ones(4, 24, 1, 1, 1)}, r"has \[24, 24\]"),
        ({f"{PLACE}.lora_A.weight": torch.ones(0, 24), f"{PLACE}.lora_B.weight": torch.ones(24, 0)}, "the shape"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_used_is_refused_by_name(fused, surplus, words):
    with pytest.raises(UserError, match=words):
        fused(PAIR | surplus)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (config(r=4, lora_alpha=64, use_dora=True), "use_dora"),
        (config(r=4, lora_alpha="much"), "lora_alpha"),
        (config(r=4, lora_alpha=64, alpha_pattern=[1]), "alpha_pattern"),
        (config(r=4, lora_alpha=64) | {"lora_alpha": "8"}, "two alphas"),
        ({"lora_adapter_metadata": "[" * 9999}, "nested too deeply"),
        ({"lora_adapter_metadata": "[]"}, "not a JSON object"),
        ({"lora_adapter_metadata": '{"transformer.lora_alpha": NaN}'}, "NaN"),
        ({"lora_alpha": "1e999"}, "too large"),
        ({"lora_alpha": "8", "alpha": "9"}, "lora_alpha 8 and alpha 9"),
    ],
    ids=str,
)
def test_metadata_that_cannot_be_honoured_are_refused(fused, metadata, words):
    with pytest.raises(UserError, match=words):
        fused(PAIR, metadata)


def test_an_alpha_said_twice_must_agree(fused):
    both = PAIR | {f"{PLACE}.alpha": torch.tensor(64.0)}
    fused(both, config(r=4, lora_alpha=64))
    with pytest.raises(UserError, match="has alpha 64 .* but 8 in its metadata"):
        fused(both, config(r=4, lora_alpha=8))


def test_unknown_metadata_are_named(fused, caplog):
    with caplog.at_level(logging.WARNING):
        fused(PAIR, config(r=4, lora_alpha=4, new_kind="fast") | {"ss_steps": "9", "recipe": "mine"})
    assert "recipe, lora_adapter_metadata.new_kind" in caplog.text and "ss_steps" not in caplog.text


def test_a_scale_beyond_float32_makes_no_nan_of_zeros(fused):
    with pytest.raises(UserError, match="makes .* infinite"):
        fused({**PAIR, f"{PLACE}.lora_B.weight": torch.zeros_like(UP)}, {"ss_network_alpha": "-1e+308"})


@pytest.mark.parametrize("weight", [float("nan"), float("-inf"), 1e300])
def test_the_weight_is_finite(tmp_path, weight):
    save_file(PAIR, tmp_path / "lora.safetensors")
    with pytest.raises(UserError, match="give a finite number"):
        fuse_lora(tiny_transformer(), tmp_path / "lora.safetensors", weight)


def test_the_identity_tells_loras_apart_by_their_metadata(tmp_path):
    for name, metadata in (("plain", None), ("strong", config(r=4, lora_alpha=64))):
        save_file(PAIR, tmp_path / name, metadata)
    assert lora_hash(tmp_path / "plain") == adapter_hash(tmp_path / "plain")
    assert lora_hash(tmp_path / "strong") == f"{lora_hash(tmp_path / 'plain')} at alpha 64"
