"""The autoencoder in tiles, part by part, is diffusers' tiling of the complete video."""

import pytest
import torch
from diffusers import AutoencoderKLWan

from imvideoedit.editing.offload import Placement
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.wan.backbone import load_backbone
from imvideoedit.wan.streaming_vae import decode_parts, encode_parts
from imvideoedit.wan.tiled_vae import InTiles
from tests.bases import autoencoder_22

TILES = {
    "tile_sample_min_height": 32,
    "tile_sample_min_width": 64,
    "tile_sample_stride_height": 16,
    "tile_sample_stride_width": 32,
}


@pytest.fixture(params=["Wan2.1", "Wan2.2"])
def vae(request):
    if request.param == "Wan2.2":
        return autoencoder_22()
    torch.manual_seed(0)
    four = {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
    return AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, **four).eval()


@torch.no_grad()
def test_tiles_of_parts_are_diffusers_tiles_of_the_video(vae):
    video = torch.rand(1, 3, 5, 64, 96) * 2 - 1
    whole = torch.cat(list(encode_parts(vae, [video])), dim=2)
    vae.enable_tiling(**TILES)
    expected = vae.encode(video).latent_dist.mode()
    found = torch.cat(list(encode_parts(vae, [video[:, :, :1], video[:, :, 1:]])), dim=2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert found.shape == whole.shape and not torch.allclose(found, whole, atol=1e-3)
    expected = vae.decode(whole).sample
    found = torch.cat(list(decode_parts(vae, [whole[:, :, :1], whole[:, :, 1:]])), dim=2)
    assert found.shape == video.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    vae.use_tiling = False
    assert not torch.allclose(torch.cat(list(decode_parts(vae, [whole])), dim=2), expected, atol=1e-3)


@torch.no_grad()
def test_frames_of_one_tile_are_worked_on_whole(vae, monkeypatch):
    monkeypatch.setattr(InTiles, "__init__", lambda *args: pytest.fail("made tiles of a frame of one"))
    video = torch.rand(1, 3, 5, 32, 64) * 2 - 1
    whole = list(encode_parts(vae, [video]))
    vae.enable_tiling()  # of 256 pixels
    assert all(torch.equal(a, b) for a, b in zip(encode_parts(vae, [video]), whole, strict=True))
    list(decode_parts(vae, whole))


@pytest.mark.parametrize(("level", "tiled"), [("full", False), ("low", True)])
def test_the_levels_that_need_least_work_in_tiles(wan_folder, level, tiled):
    backbone, method = load_backbone(str(wan_folder), device="cpu"), AlignedUpdate()
    method.install(backbone.transformer)
    Placement(backbone, method, torch.device("cpu"), level)._place(level)
    assert backbone.vae.use_tiling is tiled
