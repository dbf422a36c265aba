"""Each base of the wan room's README: loaded, trained two steps and edited with, or refused in one line."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline
from hydra import compose, initialize_config_dir

from imvideoedit.common.errors import UserError
from imvideoedit.common.hydra_command import mistakes_in_one_line
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.flow.solvers import shifted_sigmas, solve
from imvideoedit.methods.adapter_file import read_header, read_state
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.methods.freeprop import FreeProp
from imvideoedit.methods.in_context import InContext
from imvideoedit.methods.lora_edit import LoraEdit
from imvideoedit.methods.parallel_2d import Parallel2D
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.methods.sama import Sama
from imvideoedit.training.dry_run import Plan
from imvideoedit.wan.backbone import load_backbone
from imvideoedit.wan.bases import (
    KNOWN_SIZES,
    WAN_5B,
    WAN_5B_AUTOENCODER,
    WAN_14B,
    autoencoder_config,
    meta_transformer,
    pixel_multiple_of,
    transformer_config,
)
from imvideoedit.wan.forward import denoise
from imvideoedit.wan.locations import WAN_1_3B_HUB, WAN_5B_HUB, WAN_14B_HUB
from imvideoedit.wan.quantized import weight_bytes
from tests.bases import CHANNELS, autoencoder_22, other_class, wan_22_5b
from tests.conftest import tiny_transformer
from tests.pair_folder import write_pairs
from tests.training_runs import CONF, HERE, train_here

README = Path(__file__).parents[1] / "imvideoedit/wan/README.md"


@pytest.fixture(scope="module")
def folder_5b(tmp_path_factory):
    return wan_22_5b(tmp_path_factory.mktemp("5b"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    monkeypatch.delenv("IMVIDEOEDIT_WAN", raising=False)


def noise_video(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)


def edit_with_two_trained_steps(folder, tmp_path, monkeypatch, *overrides):
    """Train two steps on pairs of images, and edit five frames with what was written; returns the adapter's file."""
    write_pairs(tmp_path / "pairs", 3)
    more = [f"backbone.name={folder}", f"data.path={tmp_path / 'pairs'}", "sampling.max_area=1024", *overrides]
    adapter = train_here(tmp_path, monkeypatch, *more)
    assert read_header(adapter).training["steps"] == 2
    video = noise_video(5, 33, 47)
    pipeline = EditPipeline.from_pretrained(adapter=adapter, device="cpu")
    edited, other = (pipeline(video, text, steps=2, guidance=2.0).frames for text in ("a red ball", "snow at night"))
    assert edited.shape == video.shape and not np.array_equal(edited, other)
    return adapter


@pytest.mark.slow
def test_wan21_is_trained_and_edited_with(wan_folder, tmp_path, monkeypatch):
    edit_with_two_trained_steps(wan_folder, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["aligned_update", "predict_update", "in_context"])
def test_wan22_5b_is_trained_and_edited_with(folder_5b, tmp_path, monkeypatch, method):
    more = [] if method == "in_context" else ["method.adapter=lora"]
    adapter = edit_with_two_trained_steps(folder_5b, tmp_path, monkeypatch, f"method={method}", *more)
    moved = [name for name, tensor in read_state(adapter).items() if tensor.abs().max() > 0]
    assert len(moved) > len(read_state(adapter)) / 2


def test_wan22_5bs_autoencoder_in_parts_is_diffusers(folder_5b):
    backbone = load_backbone(str(folder_5b), device="cpu", parts=["vae"])
    assert (backbone.vae_spatial, backbone.vae_temporal, backbone.pixel_multiple) == (16, 4, 32)
    assert pixel_multiple_of(str(folder_5b)) == 32
    video = torch.rand(1, 3, 9, 32, 64) * 2 - 1
    vae = autoencoder_22()
    with torch.no_grad():
        raw = vae.encode(video).latent_dist.mode()
        decoded = vae.decode(raw).sample
    mean, std = (
        torch.tensor(values).reshape(1, -1, 1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    latents = torch.cat(list(backbone.encode_parts([video[:, :, :5], video[:, :, 5:]])), dim=2)
    assert latents.shape == (1, CHANNELS, 3, 2, 4)
    assert torch.equal(latents, (raw - mean) / std)
    parts = list(backbone.decode_parts([latents[:, :, :1], latents[:, :, 1:]]))
    torch.testing.assert_close(torch.cat(parts, dim=2), decoded, rtol=0, atol=1e-5)


@pytest.mark.parametrize("expand", [True, False])
def test_wan22_5bs_latents_are_those_of_diffusers_pipeline(folder_5b, tmp_path, expand):
    """Its pipeline gives each token a timestep, all the same where no frame is given: the same as one for all."""
    folder = shutil.copytree(folder_5b, tmp_path / "copy")
    index = json.loads((folder / "model_index.json").read_text()) | {"expand_timesteps": expand}
    (folder / "model_index.json").write_text(json.dumps(index))
    pipeline = WanPipeline.from_pretrained(folder)
    assert pipeline.config.expand_timesteps is expand
    noise = torch.randn(1, CHANNELS, 2, 2, 4)
    how = {"height": 32, "width": 64, "num_frames": 5, "num_inference_steps": 3, "guidance_scale": 1.0}
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline("a red ball", latents=noise.clone(), output_type="latent", max_sequence_length=12, **how).frames
    backbone = load_backbone(str(folder), device="cpu")
    assert backbone.shift == 3.0
    scheduler = FlowMatchEulerDiscreteScheduler(shift=backbone.shift)
    scheduler.set_timesteps(3)
    text = backbone.encode_text(["a red ball"])
    ours = solve(lambda x, sigma: denoise(backbone.transformer, x, sigma, text), noise, scheduler.sigmas)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ours, noise, atol=0.01)
    assert shifted_sigmas(3, backbone.shift)[0] == scheduler.sigmas[0] == 1


def test_the_real_sizes_of_wan22_5b_on_meta():
    transformer = meta_transformer(WAN_5B)
    assert sum(parameter.numel() for parameter in transformer.parameters()) == 4_999_787_712
    from diffusers import AutoencoderKLWan

    with torch.device("meta"):
        vae = AutoencoderKLWan(**WAN_5B_AUTOENCODER)
    assert vae.config.z_dim == transformer.config.in_channels == 48
    assert 0.6e9 < sum(parameter.numel() for parameter in vae.parameters()) < 0.8e9
    for method in (AlignedUpdate(), PredictUpdate(adapter="lora"), Parallel2D(), InContext(), FreeProp(), Sama()):
        method.install(meta_transformer(WAN_5B | {"num_layers": 2}))


@pytest.mark.parametrize(("name", "multiple"), [(WAN_1_3B_HUB, 16), (WAN_14B_HUB, 16), (WAN_5B_HUB, 32)])
def test_sizes_are_known_without_files(name, multiple):
    assert pixel_multiple_of(name) == multiple
    assert transformer_config(name)["num_layers"] == KNOWN_SIZES[name]["num_layers"]
    assert autoencoder_config(name)["scale_factor_temporal"] == 4


def test_a_dry_run_of_wan22_5b_plans_latents_of_its_own_size():
    with initialize_config_dir(CONF, version_base="1.3"):
        plan = Plan(compose("train", ["+experiment=13k", "backbone=wan_5b", "sampling=wan_5b", "data.batch_size=1"]))
    assert (plan.pairs.height, plan.pairs.width, plan.pairs.pixels) == (44, 76, 16)
    assert plan.sizes["in_channels"] == 48 and plan.flops > 1e12


def test_a_dry_run_of_a_quantised_base_counts_its_weights():
    overrides = ["+experiment=13k", "backbone=wan_14b", "method.adapter=lora", "data.batch_size=1"]
    weights = {}
    for name in ("null", "nf4"):
        with initialize_config_dir(CONF, version_base="1.3"):
            plan = Plan(compose("train", [*overrides, f"backbone.quantization={name}"]))
        assert plan.setting().quantization == (None if name == "null" else name)
        weights[name] = weight_bytes(meta_transformer(WAN_14B), plan.setting().quantization) / 2**30
    assert weights["null"] == pytest.approx(26.6, abs=0.1) and weights["nf4"] == pytest.approx(7.7, abs=0.2)
    with initialize_config_dir(CONF, version_base="1.3"):
        plan = Plan(compose("train", [*overrides, "backbone.file=base.gguf"]))
    assert plan.setting().quantization == "Q8_0"


def test_sides_that_the_base_does_not_take_are_refused(folder_5b, tmp_path, monkeypatch):
    write_pairs(tmp_path / "pairs", 3)
    with pytest.raises(UserError, match="multiples of 32; give that, or null"):
        train_here(
            tmp_path, monkeypatch, f"backbone.name={folder_5b}", f"data.path={tmp_path}/pairs", "data.pixel_multiple=16"
        )


def two_experts(folder, tmp_path):
    """Wan2.2-T2V-A14B's form: a second transformer, and the boundary between them."""
    folder = shutil.copytree(folder, tmp_path / "a14b")
    tiny_transformer(1).save_pretrained(folder / "transformer_2")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"transformer_2": ["diffusers", "WanTransformer3DModel"], "boundary_ratio": 0.875}
    (folder / "model_index.json").write_text(json.dumps(index))
    assert WanPipeline.from_pretrained(folder).transformer_2 is not None
    return folder


def other_pipeline(folder, tmp_path, kind):
    folder = shutil.copytree(folder, tmp_path / kind)
    shutil.rmtree(folder / "transformer")
    other_class(kind).save_pretrained(folder / "transformer")
    return folder


def refused_everywhere(folder, tmp_path, monkeypatch, match):
    """By loading, by training and its dry run, by a fit's plan, and by an edit."""
    named = [f"backbone.name={folder}", f"data.path={tmp_path / 'pairs'}"]
    write_pairs(tmp_path / "pairs", 1)
    with initialize_config_dir(CONF, version_base="1.3"):
        config = compose("train", [*HERE, *named])

    def edited():
        EditPipeline.from_pretrained(str(folder), device="cpu")

    uses = (
        lambda: load_backbone(str(folder), device="cpu", parts=()),
        lambda: Plan(config),
        lambda: transformer_config(str(folder)),  # which a fit asks for
        lambda: train_here(tmp_path, monkeypatch, *named),
        edited,
    )
    for use in uses:
        with pytest.raises(UserError, match=match) as caught, mistakes_in_one_line():
            use()
        assert "\n" not in str(caught.value)


def test_two_experts_are_refused_before_one_of_them_is_loaded(wan_folder, tmp_path, monkeypatch):
    folder = two_experts(wan_folder, tmp_path)
    match = r"has two experts \(transformer and transformer_2, boundary_ratio 0.875\).*take Wan-AI/Wan2.1-T2V-14B"
    refused_everywhere(folder, tmp_path, monkeypatch, match)
    (folder / "model_index.json").unlink()
    with pytest.raises(UserError, match="has two experts"):
        load_backbone(str(folder), device="cpu", parts=())


@pytest.mark.parametrize("kind", ["VACE", "Animate"])
def test_other_classes_are_refused_by_name(wan_folder, tmp_path, monkeypatch, kind):
    folder = other_pipeline(wan_folder, tmp_path, kind)
    refused_everywhere(folder, tmp_path, monkeypatch, f"is a Wan{kind}Transformer3DModel of .* input channels")


def test_the_table_of_bases_names_tests_that_there_are():
    table = README.read_text()
    named = set(re.findall(r"`(test_\w+)`", table))
    here = set(re.findall(r"^def (test_\w+)\(", Path(__file__).read_text(), re.MULTILINE))
    assert len(named) == 8 and named <= here


OF_TEXT = (AlignedUpdate, PredictUpdate, Parallel2D, InContext, Sama)
CONFIGS = {
    "I2V": {"in_channels": 12},
    "I2V with tokens": {"in_channels": 12, "image_dim": 8, "added_kv_proj_dim": 24},
    "Fun-Control": {"in_channels": 12, "out_channels": 4},
}


@pytest.mark.parametrize("method", OF_TEXT)
@pytest.mark.parametrize("base", ["I2V", "I2V with tokens"])
def test_methods_of_text_to_video_refuse_image_to_video(method, base):
    with pytest.raises(UserError, match="takes a text-to-video model of 4 input channels; this one has 12"):
        method().install(tiny_transformer(**CONFIGS[base]))


def test_a_text_to_video_model_that_reads_an_image_is_refused():
    own = {"image_dim": 8, "added_kv_proj_dim": 24}
    for method in (AlignedUpdate(), FreeProp()):
        with pytest.raises(UserError, match="this one has 4 and reads tokens of an image"):
            method.install(tiny_transformer(**own))


def test_image_to_video_goes_with_the_method_that_declares_it():
    for base in ("I2V", "I2V with tokens"):
        LoraEdit().install(tiny_transformer(**CONFIGS[base]))
    with pytest.raises(UserError, match="this one has 4; give another"):
        LoraEdit().install(tiny_transformer())


def test_fun_control_goes_with_the_method_that_declares_it():
    FreeProp().install(tiny_transformer(**CONFIGS["Fun-Control"]))
    with pytest.raises(UserError, match="this one has 12 and reads tokens of an image"):
        FreeProp().install(tiny_transformer(**CONFIGS["Fun-Control"], image_dim=8, added_kv_proj_dim=24))


@pytest.mark.parametrize(("layers", "match"), [(1, "has more than the weights"), (3, "lacks the weights")])
def test_weights_that_do_not_match_the_config_are_not_half_loaded(wan_folder, tmp_path, capfd, layers, match):
    folder = shutil.copytree(wan_folder, tmp_path / "copy")
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_layers": layers}))
    with pytest.raises(UserError, match=f"{match} that its config.json tells of, by 27"):
        load_backbone(str(folder), device="cpu", parts=())
    assert capfd.readouterr().err == ""
