"""Several adapters with weights, LoRAs under them, and what a command line makes of their names."""

from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from imvideoedit.common.errors import UserError
from imvideoedit.editing.lora import fuse_lora
from imvideoedit.editing.model_options import ModelOptions, parse_weighted
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.methods.adapter_file import AdapterHeader, adapter_hash, save_adapter
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.methods.mixture import Mixture
from imvideoedit.methods.parallel_2d import Parallel2D
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.wan.backbone import load_backbone
from imvideoedit.wan.forward import denoise
from tests.conftest import awaken, tiny_batch, tiny_transformer

SIGMA = torch.tensor([0.7, 0.2])


@pytest.fixture(scope="module")
def files(wan_folder, tmp_path_factory) -> list[Path]:
    """Adapters of three kinds in the same backbone."""
    backbone = load_backbone(str(wan_folder), device="cpu")
    paths = []
    for seed, method in enumerate((AlignedUpdate(), PredictUpdate(), Parallel2D(adapter="lora", rank=2))):
        method.install(backbone.transformer)
        awaken(method, seed)
        path = tmp_path_factory.mktemp("adapters") / f"{method.name}.safetensors"
        save_adapter(method, path, AdapterHeader.describe(method, backbone, {}))
        method.uninstall()
        paths.append(path)
    return paths


def velocity_of(wan_folder, adapter) -> torch.Tensor:
    pipeline = EditPipeline.from_pretrained(str(wan_folder), adapter, device="cpu")
    batch = tiny_batch()
    with torch.no_grad():
        return pipeline.method.velocity(pipeline.backbone.transformer, batch)(batch.target_BCFHW, SIGMA)


def test_weights_go_from_the_frozen_model_over_each_adapter_to_both(wan_folder, files):
    one, other = (velocity_of(wan_folder, file) for file in files[:2])
    batch = tiny_batch()
    plain = load_backbone(str(wan_folder), device="cpu").transformer
    with torch.no_grad():
        frozen = denoise(plain, batch.target_BCFHW, SIGMA, batch.text_BTD)
    mixed = {
        (a, b): velocity_of(wan_folder, {files[0]: a, files[1]: b})
        for a, b in ((1, 0), (0, 1), (0, 0), (1, 1), (0.5, 0.5))
    }
    torch.testing.assert_close(mixed[1, 0], one, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed[0, 1], other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed[0, 0], frozen, rtol=1e-4, atol=1e-5)
    pairs = list(mixed.values()) + [one * 0]
    assert all((a - b).abs().max() > 1e-3 for i, a in enumerate(pairs) for b in pairs[:i])


def test_an_adapter_twice_at_half_weight_is_that_adapter(wan_folder, files, tmp_path):
    for file in files:
        twin = tmp_path / file.name
        twin.write_bytes(file.read_bytes())
        both = velocity_of(wan_folder, {file: 0.5, twin: 0.5})
        torch.testing.assert_close(both, velocity_of(wan_folder, file), rtol=1e-4, atol=1e-5)


def test_a_mixture_leaves_the_transformer_as_it_was():
    transformer = tiny_transformer()
    before = {name: tensor.clone() for name, tensor in transformer.state_dict().items()}
    processors = [block.attn1.processor for block in transformer.blocks]
    methods = {}
    for method in (AlignedUpdate(), PredictUpdate()):
        method.install(transformer)
        method.detach()
        methods[method] = 1.0
    mixture = Mixture(methods)
    mixture.install(transformer)
    assert len(transformer.state_dict()) > len(before)
    mixture.uninstall()
    assert [block.attn1.processor for block in transformer.blocks] == processors
    assert all(torch.equal(tensor, before[name]) for name, tensor in transformer.state_dict().items())


def test_joint_and_cached_sources_do_not_mix():
    with pytest.raises(UserError, match="joint and with a cached"):
        Mixture({AlignedUpdate(source_stream="joint"): 1.0, AlignedUpdate(): 1.0})


def test_diffusers_own_pipeline_is_bit_identical_with_an_adapter_installed_and_after_it(wan_folder):
    pipe = WanPipeline.from_pretrained(wan_folder)
    pipe.set_progress_bar_config(disable=True)

    def generated() -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        options = {"height": 16, "width": 32, "num_frames": 5, "num_inference_steps": 2, "output_type": "pt"}
        return pipe("a red ball", generator=generator, **options).frames

    before = generated()
    method = AlignedUpdate()
    method.install(pipe.transformer)
    awaken(method)
    assert torch.equal(generated(), before)
    method.uninstall()
    assert torch.equal(generated(), before)


NAMES = {"self_attn.q": "attn1.to_q", "cross_attn.o": "attn2.to_out.0", "ffn.0": "ffn.net.0.proj"}


@pytest.mark.parametrize("form", ["diffusers", "causvid", "kohya"])
def test_a_lora_of_any_published_form_adds_its_product(form, tmp_path):
    transformer = tiny_transformer()
    own, state, wanted = dict(transformer.named_parameters()), {}, {}
    for original, name in NAMES.items():
        weight = own[f"blocks.1.{name}.weight"]
        down, up = torch.randn(3, weight.shape[1]), torch.randn(weight.shape[0], 3)
        wanted[f"blocks.1.{name}.weight"] = weight + 0.5 * up @ down
        if form == "diffusers":
            state |= {
                f"transformer.blocks.1.{name}.lora_A.weight": down,
                f"transformer.blocks.1.{name}.lora_B.weight": up,
            }
        elif form == "causvid":
            place, bias = f"diffusion_model.blocks.1.{original}", torch.randn(weight.shape[0])
            state |= {f"{place}.lora_A.weight": down, f"{place}.lora_B.weight": up, f"{place}.diff_b": bias}
            wanted[f"blocks.1.{name}.bias"] = own[f"blocks.1.{name}.bias"] + 0.5 * bias
        else:  # alpha over rank scales it
            place = f"diffusion_model.blocks.1.{original}"
            state |= {
                f"{place}.lora_down.weight": down,
                f"{place}.lora_up.weight": up,
                f"{place}.alpha": torch.tensor(1.5),
            }
            wanted[f"blocks.1.{name}.weight"] = weight + 0.25 * up @ down
    before = {name: tensor.clone() for name, tensor in own.items()}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "lora.safetensors")
    fuse_lora(transformer, tmp_path / "lora.safetensors", 0.5)
    for name, tensor in transformer.named_parameters():
        torch.testing.assert_close(tensor, wanted.get(name, before[name]), rtol=1e-5, atol=1e-6)


def test_a_lora_that_does_not_fit_changes_nothing(tmp_path):
    transformer = tiny_transformer()
    before = {name: tensor.clone() for name, tensor in transformer.named_parameters()}
    fitting = {"transformer.blocks.0.attn1.to_q.lora_A.weight": torch.ones(2, 24)}
    fitting["transformer.blocks.0.attn1.to_q.lora_B.weight"] = torch.ones(24, 2)
    odd = {"transformer.blocks.1.attn1.to_q.lora_A.weight": torch.ones(2, 23)}
    odd["transformer.blocks.1.attn1.to_q.lora_B.weight"] = torch.ones(24, 2)
    save_file(fitting | odd, tmp_path / "odd.safetensors")
    with pytest.raises(UserError, match="has \\[24, 24\\]"):
        fuse_lora(transformer, tmp_path / "odd.safetensors")
    save_file({"weight": torch.ones(1)}, tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="no LoRA"):
        fuse_lora(transformer, tmp_path / "none.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in transformer.named_parameters())


def test_a_models_name_says_all_that_decides(files):
    one, other = files[:2]
    plain = ModelOptions(((one, 1.0),))
    assert plain.identity == adapter_hash(one)
    models = [
        plain,
        ModelOptions(((one, 0.5),)),
        ModelOptions(((one, 1.0), (other, 1.0))),
        ModelOptions(((one, 1.0),), ((other, 0.5),)),
    ]
    assert len({model.identity for model in models}) == len(models)


@given(st.text("abc.=/", min_size=1), st.floats(-2, 2))
def test_a_weight_follows_the_last_equals_sign(name, weight):
    assert parse_weighted(f"{name}={weight}") == (Path(name), weight)


def test_a_name_without_a_weight_and_a_weight_that_is_none(tmp_path):
    odd = tmp_path / "a=b.safetensors"
    odd.write_bytes(b"")
    assert parse_weighted(str(odd)) == (odd, 1.0) and parse_weighted("a.safetensors") == (Path("a.safetensors"), 1.0)
    with pytest.raises(UserError, match="'much' is no weight"):
        parse_weighted("a.safetensors=much")
