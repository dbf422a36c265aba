"""The plain LoRA in context: an ordinary LoRA file, in the keys of others, with the very same velocities."""

from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from safetensors.torch import load_file

from imvideoedit.common.errors import Note, UserError
from imvideoedit.editing.lora import fuse_lora
from imvideoedit.editing.lora_file import read_lora
from imvideoedit.flow.matching import FlowMatching
from imvideoedit.methods.adapter_file import save_adapter
from imvideoedit.methods.adapter_header import AdapterHeader
from imvideoedit.methods.aligned_update import AlignedUpdate
from imvideoedit.methods.base import Method
from imvideoedit.methods.in_context import InContext, in_context_pass
from imvideoedit.methods.lora_export import main as export
from imvideoedit.wan.backbone import Backbone
from imvideoedit.wan.forward import arguments
from tests.conftest import awaken, tiny_batch, tiny_transformer

SIGMA = torch.tensor([0.3, 0.8])


def trained(method: Method, path: Path):
    """An adapter of random weights, also as a file."""
    transformer = tiny_transformer()
    method.install(transformer)
    awaken(method)
    backbone = Backbone("tiny", "r1", transformer, None, None, None, 5.0)
    save_adapter(method, path, AdapterHeader.describe(method, backbone, {"sampler": {}}))
    return transformer, method


@pytest.fixture(params=["diffusers", "comfyui"])
def exported(request, tmp_path):
    """An adapter's velocity, and its LoRA file."""
    transformer, method = trained(InContext(rank=3), tmp_path / "adapter.safetensors")
    export([str(tmp_path / "adapter.safetensors"), str(tmp_path / "lora.safetensors"), "--keys", request.param])
    batch = tiny_batch()
    with torch.no_grad():
        v_BCFHW = method.velocity(transformer, batch)(batch.target_BCFHW, SIGMA)
    return v_BCFHW, tmp_path / "lora.safetensors", method


def alone(transformer, batch):
    taken = arguments(transformer, batch.target_BCFHW, SIGMA, batch.text_BTD)
    with torch.no_grad():
        return in_context_pass(batch.source_BCFHW, "same", transformer, *taken)


def test_diffusers_loads_the_file_and_gives_the_same_velocities(exported):
    pytest.importorskip("peft", reason="diffusers loads LoRAs by peft, which is not installed")
    v_BCFHW, path, _ = exported
    transformer, batch = tiny_transformer(), tiny_batch()
    before = alone(transformer, batch)
    pipeline = WanPipeline(None, None, None, None, transformer=transformer)
    pipeline.load_lora_weights(path.parent, weight_name=path.name)
    loaded = alone(pipeline.transformer, batch)
    assert (loaded - before).abs().max() > 0.01
    torch.testing.assert_close(loaded, v_BCFHW, rtol=1e-5, atol=1e-5)


def test_read_back_and_fused_it_gives_the_same_velocities(exported):
    v_BCFHW, path, method = exported
    transformer, batch = tiny_transformer(), tiny_batch()
    count = len(load_file(path))
    with pytest.warns(Note, match=f"^{count} of {count} keys of .* are used$"):
        fuse_lora(transformer, path)
    torch.testing.assert_close(alone(transformer, batch), v_BCFHW, rtol=1e-5, atol=1e-5)
    assert len(read_lora(path).changes) == len(list(method.shard_units())) == 10 * len(transformer.blocks)
    assert {name.split(".")[-1] for name in load_file(path)} <= {"weight", "alpha"}


def test_other_adapters_are_no_loras(tmp_path, capsys):
    trained(AlignedUpdate(), tmp_path / "adapter.safetensors")
    with pytest.raises(SystemExit, match="2"):
        export([str(tmp_path / "adapter.safetensors"), str(tmp_path / "lora.safetensors")])
    said = capsys.readouterr().err
    assert "aligned_update" in said and said.count("\n") == 1 and not (tmp_path / "lora.safetensors").exists()


def test_a_longer_video_has_the_places_of_a_still():
    """With the same places, what a frame's tokens see of the source's frame does not depend on the video's length."""
    transformer = tiny_transformer()
    seen = []
    transformer.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[3]))
    for frames in (1, 5):
        batch = tiny_batch(2, frames)
        velocity = in_context_pass(
            batch.source_BCFHW,
            "same",
            transformer,
            *arguments(transformer, batch.target_BCFHW, SIGMA, batch.text_BTD),
        )
        assert velocity.shape == batch.target_BCFHW.shape
    (still, _), (video, _) = seen
    count, longer = still.shape[1] // 2, video.shape[1] // 2
    assert torch.equal(still[:, :count], still[:, count:]) and torch.equal(video[:, :longer], video[:, longer:])
    assert torch.equal(still[:, :count], video[:, :count])


def test_options_out_of_their_range_are_one_line():
    for wrong in ({"rank": 0}, {"maps": "some"}, {"place": "above"}):
        with pytest.raises(UserError, match=f"method.{next(iter(wrong))} is"):
            InContext(**wrong)
    assert InContext(objective=FlowMatching()).config() == {"rank": 32, "maps": "all", "place": "same"}
