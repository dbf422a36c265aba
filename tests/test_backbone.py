import json
import math
import shutil

import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
from safetensors.torch import load_file, save_file

from imvideoedit.common.errors import UserError
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.wan.backbone import load_backbone
from imvideoedit.wan.bases import meta_transformer
from imvideoedit.wan.identity import parameter_hash
from imvideoedit.wan.locations import WAN_1_3B_HUB, WAN_1_3B_REVISION, default_device
from imvideoedit.wan.patch_autoencoder import NanoAutoencoder
from tests.conftest import TINY_TRANSFORMER, tiny_transformer


@pytest.fixture(scope="module")
def backbone(wan_folder):
    return load_backbone(str(wan_folder), device="cpu")


@pytest.fixture(scope="module")
def pipeline(wan_folder):
    return WanPipeline.from_pretrained(wan_folder)


def copy_of(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def edit_json(path, **changes):
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_all_parts_arrive_frozen(backbone, wan_folder):
    assert backbone.name == str(wan_folder) and backbone.revision is None
    assert backbone.device == torch.device("cpu") and backbone.dtype == torch.float32
    assert backbone.shift == 3.0
    assert (backbone.vae_spatial, backbone.vae_temporal, backbone.pixel_multiple) == (8, 4, 16)
    for part in (backbone.transformer, backbone.vae, backbone.text_encoder):
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())
    stored = tiny_transformer().state_dict()
    assert all(torch.equal(weight, stored[name]) for name, weight in backbone.transformer.state_dict().items())


def test_parts_can_stay_on_the_disk(wan_folder):
    bare = load_backbone(str(wan_folder), device="cpu", parts=())
    assert bare.vae is None and bare.text_encoder is None and bare.tokenizer is None
    for use in (lambda: bare.pixel_multiple, lambda: bare.decode_video(torch.zeros(1, 4, 1, 2, 2))):
        with pytest.raises(ValueError, match="without its vae"):
            use()
    with pytest.raises(ValueError, match="without its text_encoder"):
        bare.encode_text(["a red ball"])


def test_half_precision_spares_the_autoencoder(wan_folder):
    half = load_backbone(str(wan_folder), device="cpu", dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert half.encode_text(["a red ball"]).dtype == torch.bfloat16
    assert half.encode_video(torch.zeros(1, 3, 1, 16, 16)).dtype == torch.float32


@pytest.mark.parametrize("frames", [1, 5])
def test_latents_are_normalised_and_repeatable(backbone, frames):
    video = torch.rand(2, 3, frames, 16, 32) * 2 - 1
    latents = backbone.encode_video(video)
    assert latents.shape == (2, 4, (frames - 1) // 4 + 1, 2, 4)
    assert torch.equal(latents, backbone.encode_video(video))
    mode = backbone.vae.encode(video).latent_dist.mode()
    mean, std = (torch.tensor(numbers).reshape(1, -1, 1, 1, 1) for numbers in ([0.1, -0.2, 0.3, 0], [1.5, 0.5, 1, 2]))
    torch.testing.assert_close(latents * std + mean, mode)
    decoded = backbone.decode_video(latents)
    assert decoded.shape == video.shape
    torch.testing.assert_close(decoded, backbone.vae.decode(mode).sample.clamp(-1, 1))
    assert not decoded.requires_grad


@pytest.mark.parametrize(
    ("shape", "message"),
    [((4, 16, 16), "4 frames"), ((2, 16, 16), "2 frames"), ((1, 24, 16), "24x16"), ((1, 16, 8), "x8")],
)
def test_misfits_are_refused(backbone, shape, message):
    with pytest.raises(ValueError, match=message):
        backbone.encode_video(torch.zeros(1, 3, *shape))


def test_decoded_pixels_are_in_range(backbone):
    decoded = backbone.decode_video(100 * torch.randn(1, 4, 2, 2, 2))
    assert decoded.abs().max() <= 1


def test_text_is_embedded_as_diffusers_does(backbone, pipeline):
    prompts = ["  a red&amp;blue   ball ", "", "the cube on the sand " * 5]
    with torch.no_grad():
        expected = pipeline._get_t5_prompt_embeds(prompts, max_sequence_length=12)
    text = backbone.encode_text(prompts)
    assert torch.equal(text, expected)
    assert text.shape == (3, 12, 16)
    # The empty prompt is its end mark alone; the long one is cut to the twelve tokens.
    assert [int((row != 0).any(-1).sum()) for row in text[1:]] == [1, 12]


def test_velocity_matches_the_pipelines_transformer(backbone, pipeline):
    latents, time, text = torch.randn(1, 4, 1, 4, 4), torch.tensor([500.0]), torch.randn(1, 12, 16)
    ours, theirs = (part.transformer(latents, time, text).sample for part in (backbone, pipeline))
    assert torch.equal(ours, theirs)


def test_the_hash_is_one_for_all_precisions_and_with_an_adapter(backbone):
    transformer = tiny_transformer()
    fingerprint = parameter_hash(transformer)
    assert fingerprint == backbone.parameter_hash()
    PredictUpdate().install(transformer)
    assert parameter_hash(transformer) == fingerprint
    assert parameter_hash(tiny_transformer().to(torch.bfloat16)) == fingerprint
    assert parameter_hash(tiny_transformer(seed=1)) != fingerprint


def test_the_autoencoder_is_chosen_by_the_folder(wan_folder, tmp_path):
    folder = copy_of(wan_folder, tmp_path)
    shutil.rmtree(folder / "vae")
    nano = NanoAutoencoder(z_dim=4, width=8, latents_mean=[0.5] * 4, latents_std=[2.0] * 4)
    nano.save_pretrained(folder / "vae")
    backbone = load_backbone(str(folder), device="cpu")
    assert type(backbone.vae) is NanoAutoencoder
    assert (backbone.vae_spatial, backbone.vae_temporal, backbone.pixel_multiple) == (4, 4, 8)
    video = torch.rand(1, 3, 5, 8, 16) * 2 - 1
    latents = backbone.encode_video(video)
    torch.testing.assert_close(latents * 2 + 0.5, nano.encode(video).latent_dist.mode())
    assert backbone.decode_video(latents).shape == video.shape


def test_wans_own_autoencoder_config_may_leave_its_scale_out(wan_folder, tmp_path):
    folder = copy_of(wan_folder, tmp_path)
    edit_json(folder / "vae" / "config.json", scale_factor_spatial=None, scale_factor_temporal=None)
    backbone = load_backbone(str(folder), device="cpu", parts=["vae"])
    assert type(backbone.vae) is AutoencoderKLWan
    assert (backbone.vae_spatial, backbone.vae_temporal) == (8, 4)


@pytest.mark.parametrize(("config", "shift"), [({"flow_shift": None, "shift": 2.5}, 2.5), ({"flow_shift": None}, 5.0)])
def test_the_shift_is_found_under_either_name(wan_folder, tmp_path, config, shift):
    folder = copy_of(wan_folder, tmp_path)
    edit_json(folder / "scheduler" / "scheduler_config.json", **config)
    assert load_backbone(str(folder), device="cpu", parts=()).shift == shift
    shutil.rmtree(folder / "scheduler")
    assert load_backbone(str(folder), device="cpu", parts=()).shift == 5.0


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "tokenizer"])
def test_an_incomplete_folder_is_refused_in_one_line(wan_folder, tmp_path, part):
    folder = copy_of(wan_folder, tmp_path)
    shutil.rmtree(folder / part)
    with pytest.raises(UserError, match="cannot be loaded from") as caught:
        load_backbone(str(folder), device="cpu")
    assert "it must hold transformer/" in str(caught.value)


def test_damaged_weights_are_refused(wan_folder, tmp_path):
    folder = copy_of(wan_folder, tmp_path)
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(UserError, match="cannot be loaded from"):
        load_backbone(str(folder), device="cpu", parts=())


def test_an_unknown_autoencoder_is_refused(wan_folder, tmp_path):
    folder = copy_of(wan_folder, tmp_path)
    edit_json(folder / "vae" / "config.json", _class_name="AutoencoderKL")
    with pytest.raises(UserError, match="AutoencoderKL"):
        load_backbone(str(folder), device="cpu")


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./nowhere", "nonsense", "~/models"])
def test_a_missing_folder_is_named(name):
    with pytest.raises(UserError, match=f"folder {name} does not exist"):
        load_backbone(name)


def test_without_a_network_a_hub_id_tells_what_to_do(monkeypatch):
    monkeypatch.delenv("IMVIDEOEDIT_WAN", raising=False)
    with pytest.raises(UserError, match="IMVIDEOEDIT_WAN") as caught:
        load_backbone("wan_1_3b", revision="0" * 40, device="cpu")
    assert WAN_1_3B_HUB in str(caught.value)


def test_an_environment_that_names_no_folder_is_said_to(monkeypatch, tmp_path):
    monkeypatch.setenv("IMVIDEOEDIT_WAN", str(tmp_path / "gone"))
    with pytest.raises(UserError, match="IMVIDEOEDIT_WAN, but that is no folder"):
        load_backbone("wan_1_3b", device="cpu")


def test_the_environment_names_a_local_wan(monkeypatch, wan_folder):
    monkeypatch.setenv("IMVIDEOEDIT_WAN", str(wan_folder))
    backbone = load_backbone("wan_1_3b", device="cpu", parts=())
    assert backbone.name == "wan_1_3b"
    assert backbone.parameter_hash() == parameter_hash(tiny_transformer())
    assert len(WAN_1_3B_REVISION) == 40


def test_a_meta_transformer_has_the_asked_shape():
    model = meta_transformer(TINY_TRANSFORMER)
    assert isinstance(model, WanTransformer3DModel)
    assert {name: p.shape for name, p in model.named_parameters()} == {
        name: p.shape for name, p in tiny_transformer().named_parameters()
    }
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_weights_that_are_not_finite_are_refused_by_name(wan_folder, tmp_path, part):
    folder = tmp_path / "wan"
    shutil.copytree(wan_folder, folder)
    (file,) = (folder / part).glob("*.safetensors")
    state = load_file(file)
    name = next(name for name, value in sorted(state.items()) if value.is_floating_point())
    state[name].view(-1)[0] = math.nan
    save_file(state, file, {"format": "pt"})
    with pytest.raises(UserError, match="holds NaN or infinite values at"):
        load_backbone(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("ranks", "gpus", "place"),
    [
        ({}, 8, "cuda:0"),
        ({"LOCAL_RANK": "5"}, 8, "cuda:5"),
        ({"SLURM_LOCALID": "3"}, 8, "cuda:3"),
        ({"SLURM_LOCALID": "3"}, 1, "cuda:0"),  # each task sees its own GPU alone
        ({"LOCAL_RANK": "1", "SLURM_LOCALID": "0"}, 8, "cuda:1"),  # torchrun within one task
        ({"LOCAL_RANK": "1"}, 0, "cpu"),
    ],
)
def test_each_process_loads_on_a_gpu_of_its_own(ranks, gpus, place, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.delenv("SLURM_LOCALID", raising=False)
    for name, rank in ranks.items():
        monkeypatch.setenv(name, rank)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert default_device(None) == torch.device(place)
    assert default_device("cpu") == torch.device("cpu")


def test_nothing_of_a_process_is_placed_on_the_gpu_of_another(wan_folder, monkeypatch):
    places = eight_gpus(monkeypatch, "5")
    assert load_backbone(str(wan_folder)).dtype == torch.bfloat16
    assert places == {torch.device("cuda:5")}


def test_an_edit_goes_by_the_cpu_to_the_gpu_of_its_process(monkeypatch):
    places = eight_gpus(monkeypatch, "3")
    probed = []
    monkeypatch.setattr("imvideoedit.editing.pipeline.choose_attention", lambda *given: probed.append(given[2]))
    pipeline = EditPipeline.from_pretrained(memory="full")
    assert places == {torch.device("cpu")} and probed == [pipeline.placement.device] == [torch.device("cuda:3")]
    places.clear()
    pipeline.fit_memory(pipeline.config, 64, 64)
    assert places == {torch.device("cuda:3")}


def eight_gpus(monkeypatch, rank: str) -> set[torch.device]:
    """A machine of eight GPUs, as a process of that local rank sees it; the places that modules are moved to."""
    places: set[torch.device] = set()
    own = torch.nn.Module.to

    def to(module, *given, **more):
        found = [*given, *more.values()]
        places.update(torch.device(each) for each in found if isinstance(each, str | torch.device))
        dtypes = [each for each in found if isinstance(each, torch.dtype)]
        return own(module, *dtypes) if dtypes else module

    monkeypatch.setattr(torch.nn.Module, "to", to)
    monkeypatch.delenv("SLURM_LOCALID", raising=False)
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    for name, value in {"mem_get_info": (2**40, 2**40), "memory_reserved": 0, "memory_allocated": 0}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: (places.add(device), value)[1])
    return places
