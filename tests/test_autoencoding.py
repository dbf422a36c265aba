"""A video encoded and decoded in parts is the whole video encoded and decoded."""

import pytest
import torch

from imvideoedit.wan.backbone import load_backbone
from imvideoedit.wan.streaming_vae import decode_parts, encode_parts


@pytest.fixture(scope="module", params=["wan", "nano"])
def backbone(request, wan_folder):
    return load_backbone(str(wan_folder) if request.param == "wan" else "nano", device="cpu", parts=("vae",))


@pytest.mark.parametrize("sizes", [[1], [5], [1, 8, 4], [9, 4, 4, 8]])
@torch.no_grad()
def test_parts_give_what_the_whole_gives(backbone, sizes):
    video = torch.rand(1, 3, sum(sizes), 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = backbone.vae.encode(video).latent_dist.mode()
    latents = torch.cat(list(encode_parts(backbone.vae, torch.split(video, sizes, dim=2))), dim=2)
    torch.testing.assert_close(latents, whole, rtol=1e-5, atol=1e-5)
    for step in (1, 3):
        decoded = torch.cat(list(decode_parts(backbone.vae, torch.split(whole, step, dim=2))), dim=2)
        torch.testing.assert_close(decoded, backbone.vae.decode(whole).sample.clamp(-1, 1), rtol=1e-5, atol=1e-5)
