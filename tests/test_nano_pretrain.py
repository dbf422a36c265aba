"""Making the nano backbone: autoencoder geometry, closed form, the full command at toy size, the pixel classifier."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanPipeline

from imvideoedit.common.bundled import WEIGHTS
from imvideoedit.common.errors import UserError
from imvideoedit.nano import scene_pools
from imvideoedit.nano.autoencoder import NanoAutoencoder
from imvideoedit.nano.fit_autoencoder import fit_start, round_trip_psnr
from imvideoedit.nano.pretrain import main as pretrain_command
from imvideoedit.nano.pretrain import save
from imvideoedit.nano.quality import (
    _counts,
    _shares,
    _shown,
    clean_scene,
    crowded_scene,
    kind_of,
    measure,
    place_of,
)
from imvideoedit.nano.quality import main as quality_command
from imvideoedit.nano.scene_batches import WorldBatches, to_tensor
from imvideoedit.nano.scene_pools import SceneBatches, ScenePool, encoded_scenes
from imvideoedit.wan.backbone import load_backbone
from imvideoedit.world.render import render
from imvideoedit.world.scenes import Scene, Thing
from tests import processes

TOY = [
    "devices=1",
    "autoencoder.steps=2", "transformer.steps=4", "autoencoder.model.width=8", "transformer.model.num_layers=1",
    "transformer.model.ffn_dim=32", "transformer.model.attention_head_dim=12", "text_encoder.d_model=16",
    "text_encoder.d_kv=8", "text_encoder.d_ff=16", "text_encoder.num_layers=1", "autoencoder.shapes=[[2,1],[1,5]]",
    "transformer.pools.plain.scenes=5", "transformer.pools.stills.scenes=6", "transformer.pools.clips.frames=5",
    "transformer.pools.clips.scenes=4", "transformer.pools.long.frames=5", "transformer.pools.long.scenes=3",
    "measure.samples=2", "measure.steps=1", "checkpoint_every=2",
    "precision=32-true", "autoencoder.clips=60", "measure.clips=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def started() -> NanoAutoencoder:
    autoencoder = NanoAutoencoder(width=16, encoder_blocks=1, decoder_blocks=1)
    fit_start(autoencoder, seed=0, clips=80)
    return autoencoder.eval()


@torch.no_grad()
def test_a_still_image_and_a_still_clip_have_the_same_latent(started):
    image = torch.rand(1, 3, 1, 64, 64) * 2 - 1
    latents = started.encode(image.expand(-1, -1, 9, -1, -1)).latent_dist.mode()
    assert latents.shape == (1, 16, 3, 16, 16)
    first = started.encode(image).latent_dist.mode()
    assert torch.allclose(latents, first.expand_as(latents), atol=1e-5)


@torch.no_grad()
def test_latent_frames_are_coded_apart(started):
    video = torch.rand(1, 3, 9, 32, 48) * 2 - 1
    changed = video.clone()
    changed[:, :, 5:] *= -1
    a, b = (started.encode(v).latent_dist.mode() for v in (video, changed))
    assert torch.equal(a[:, :, :2], b[:, :, :2]) and not torch.allclose(a[:, :, 2], b[:, :, 2])
    assert started.decode(a).sample.shape == video.shape
    assert torch.equal(started.decode(a).sample[:, :, :5], started.decode(b).sample[:, :, :5])


def test_the_closed_form_alone_round_trips_test_compositions(started):
    assert round_trip_psnr(started, 17, clips=6) > 26
    assert round_trip_psnr(NanoAutoencoder(width=16), 17, clips=2) < 15


def test_other_lengths_are_refused(started):
    with pytest.raises(ValueError, match="4k \\+ 1"):
        started.encode(torch.zeros(1, 3, 4, 64, 64))


def test_batches_depend_on_their_index_alone():
    full, later = WorldBatches(3, 6, [(2, 1), (1, 5)]), WorldBatches(3, 6, [(2, 1), (1, 5)], start=4)
    assert [b["video"].shape[2] for b in full.loader()] == [1, 5, 1, 5, 1, 5] and len(later) == 2
    assert torch.equal(full[4]["video"], later[0]["video"]) and torch.equal(full[5]["video"], later[1]["video"])


def test_scenes_are_encoded_once_and_drawn_by_their_shares(tmp_path, monkeypatch):
    backbone = load_backbone("nano", device="cpu")
    stills, clips = ScenePool(1, 6, 4, (1.0, 0.0)), ScenePool(5, 3, 2, (0.0, 1.0), plain=True)
    pools = [(pool, encoded_scenes(tmp_path, backbone, pool, 3)) for pool in (stills, clips)]
    video, labels, text = clips.scene(3, 1)
    latents = backbone.encode_video(to_tensor(video)[None])
    row = pools[1][1].batch([1])
    assert torch.allclose(row["latents"], latents, atol=5e-3) and np.array_equal(row["labels"][0], labels)
    assert row["ids"][0].tolist() == backbone.tokenizer(text, padding="max_length").input_ids

    batches = SceneBatches(pools, 3, lambda step: step / 100, ranks=2)
    assert batches[0]["latents"].shape[::2] == (4, 1, 16) and batches[199]["latents"].shape[::2] == (2, 2, 16)
    drawn = [batches.pool(step) for step in range(100)]
    assert sum(drawn[:50]) < 25 < 75 < sum(drawn[50:]) + 50
    again = SceneBatches(pools, 3, lambda step: step / 100, ranks=2)
    assert all(torch.equal(batches[7][name], again[7][name]) for name in row)
    assert not torch.equal(batches[6]["latents"], batches[7]["latents"])  # of the other process

    monkeypatch.setattr(scene_pools, "_entries", None)
    more = encoded_scenes(tmp_path, backbone, stills, 3)
    assert torch.equal(more.latents_NCFHW, pools[0][1].latents_NCFHW)


def test_pools_out_of_their_range_are_refused():
    for wrong in ((4, 6, 4, (1, 1)), (1, 0, 4, (1, 1)), (1, 6, 0, (1, 1)), (1, 6, 4, (1, -1))):
        with pytest.raises(UserError, match="a pool"):
            ScenePool(*wrong)


def test_the_classifier_sees_exact_renderings_rightly_and_wrong_ones_wrongly():
    rng = np.random.default_rng(5)
    scenes = [clean_scene(rng) for _ in range(40)]
    videos = np.stack([render(scene, 17) for scene in scenes])
    right, wrong = _shares(videos, scenes), _shares(np.roll(videos, 1, axis=0), scenes)
    assert right["both_colors"] >= 0.95 and right["motion"] == 1.0
    assert right["place"] >= 0.95 and right["kind"] >= 0.95
    assert wrong["background_color"] < 0.4 and wrong["object_color"] < 0.4
    assert wrong["place"] < 0.4 and wrong["kind"] < 0.4
    still = _shares(np.repeat(videos[:, :1], 17, axis=1), scenes)
    assert still["motion"] == 0.0
    others = np.roll(videos, 7, axis=0)
    flicker = np.where((np.arange(17) % 2 == 0)[None, :, None, None, None], videos, others)
    assert _shares(flicker, scenes)["motion"] <= 0.2


def test_things_are_counted_rightly_in_exact_renderings_and_wrongly_in_others():
    rng = np.random.default_rng(6)
    crowds = [crowded_scene(rng, 1 + number % 3) for number in range(30)]
    stills = np.stack([render(scene, 1) for scene in crowds])
    assert _counts(stills, crowds)["count"] >= 0.95
    assert _counts(np.roll(stills, 1, axis=0), crowds)["count"] <= 0.05
    assert _counts(np.zeros_like(stills), crowds)["count"] == 0


def test_a_thing_elsewhere_or_of_another_kind_is_seen_as_such():
    thing = Thing("star", "red", x=0.2, y=0.5)
    for kind, x, place in (("star", 0.2, "left"), ("box", 0.8, "right"), ("ring", 0.5, "center")):
        other = replace(thing, kind=kind, x=x)
        mask = _shown(render(Scene("grey", "plain", (other,)))[0], "red")
        assert (place_of(mask), kind_of(mask, thing)) == (place, kind)
    nothing = _shown(render(Scene("grey", "plain"))[0], "red")
    assert place_of(nothing) is None and kind_of(nothing, thing) is None


def test_the_command_refuses_what_is_no_nano_backbone(wan_folder, capsys):
    with pytest.raises(SystemExit, match="2"):
        quality_command([str(wan_folder)])
    assert "is no nano backbone" in capsys.readouterr().err


def test_noise_is_measured_as_noise():
    shares = measure(lambda prompts, f: np.random.default_rng(0).integers(0, 255, (len(prompts), f, 64, 64, 3)), 20)
    assert shares["generated"]["both_colors"] < 0.3 and shares["exact"]["both_colors"] > 0.9


def test_diffusers_loads_the_bundled_folder():
    pipeline = WanPipeline.from_pretrained(WEIGHTS)
    assert type(pipeline.vae) is NanoAutoencoder


def test_a_folder_that_is_saved_in_part_is_no_backbone_and_keeps_what_else_it_holds(tmp_path, monkeypatch):
    first, second = (load_backbone("nano", device="cpu") for _ in range(2))
    with torch.no_grad():
        second.transformer.patch_embedding.bias += 1
    folder = tmp_path / "backbone"
    (folder / "transformer").mkdir(parents=True)
    (folder / "transformer/last.ckpt").write_bytes(b"checkpoint")
    save(first, folder)
    names = {path.relative_to(folder) for path in folder.rglob("*")}
    move, moved = Path.replace, []

    def cut(self, target):
        if len(moved) == 4:
            raise KeyboardInterrupt
        moved.append(target)
        return move(self, target)

    monkeypatch.setattr(Path, "replace", cut)
    with pytest.raises(KeyboardInterrupt):
        save(second, folder)
    monkeypatch.undo()
    with pytest.raises(UserError, match="cannot be loaded"):
        load_backbone(str(folder), device="cpu")
    save(second, folder)
    assert {path.relative_to(folder) for path in folder.rglob("*")} == names
    assert (folder / "transformer/last.ckpt").read_bytes() == b"checkpoint"
    loaded = load_backbone(str(folder), device="cpu").transformer.state_dict()
    assert all(tensor.equal(loaded[name].half()) for name, tensor in second.transformer.half().state_dict().items())


@pytest.mark.slow
def test_the_command_makes_a_wan_pipeline_folder_and_resumes_after_an_interruption(tmp_path):
    def run(out, *more):
        done = processes.run("imvideoedit.nano.pretrain", f"out={out}", *TOY, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return load_backbone(str(out))

    full = run(tmp_path / "full", f"scenes={tmp_path / 'scenes'}")
    run(tmp_path / "parts", "transformer.steps=2", "devices=2")
    resumed = run(tmp_path / "parts", "resume=true")
    assert {"quality", "config", "seconds"} <= set(json.loads((tmp_path / "parts/quality.json").read_text()))
    assert resumed.transformer.dtype == torch.float32 and full.pixel_multiple == 8
    pipeline = WanPipeline.from_pretrained(tmp_path / "full")
    video = pipeline("a red ball", height=64, width=64, num_frames=5, num_inference_steps=1, output_type="np").frames
    assert video.shape == (1, 5, 64, 64, 3)


@pytest.mark.slow
def test_steps_as_one_graph_are_the_same_and_the_clock_ends_a_run(tmp_path):
    common = [*TOY, f"scenes={tmp_path / 'scenes'}", "autoencoder.take_from=nano", "transformer.pools.clips=null"]
    weights = {}
    for name, more in {"eager": [], "again": [], "graph": ["transformer.compile=true"]}.items():
        done = processes.run("imvideoedit.nano.pretrain", f"out={tmp_path / name}", *common, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        weights[name] = load_backbone(str(tmp_path / name)).transformer.state_dict()
    for name, tensor in weights["eager"].items():
        assert torch.equal(tensor, weights["again"][name]), name
        assert torch.allclose(tensor, weights["graph"][name], atol=2e-3), name
    timed = ["transformer.steps=null", "transformer.max_time=00:00:00:03"]
    done = processes.run("imvideoedit.nano.pretrain", f"out={tmp_path / 'timed'}", *common, *timed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "timed/quality.json").read_text())
    assert report["steps"] > 4 and report["seconds"]["transformer"] > 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["transformer.steps=null"], "no end"),
        ([f"transformer.pools.{name}=null" for name in ("plain", "stills", "clips", "long")], "no transformer.pools"),
        (["transformer.pools.stills.frames=4"], "4k + 1"),
    ],
)
def test_a_run_that_could_not_train_is_refused_before_it_begins(given, said, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pretrain", f"out={tmp_path}", *given])
    with pytest.raises(SystemExit, match="2"):
        pretrain_command()
    assert said in capsys.readouterr().err
