"""The editing pipeline: any size and length goes in and comes out, the seed decides, the source and the text matter."""

import math
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imvideoedit.common.bundled import WEIGHTS
from imvideoedit.common.errors import UserError
from imvideoedit.edit import main
from imvideoedit.editing.edit_file import read_facts
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.editing.shown import NANO_NOTE
from imvideoedit.methods.adapter_file import AdapterHeader, save_adapter
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.video.geometry import fit_size, from_model, to_model
from imvideoedit.wan.backbone import Backbone, load_backbone
from tests.conftest import awaken

CONFIG = SamplingConfig(max_area=16 * 32, max_frames=5, steps=2, guidance=2.0)


def noise_video(frames: int, height: int = 16, width: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def backbone(wan_folder) -> Backbone:
    return load_backbone(str(wan_folder), device="cpu")


@pytest.fixture(scope="module")
def pipeline(backbone) -> EditPipeline:
    method = PredictUpdate()
    method.install(backbone.transformer)
    awaken(method)
    return EditPipeline(backbone, method.requires_grad_(False), CONFIG)


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(1, 16, 32), (2, 33, 47), (5, 64, 20), (7, 16, 32), (11, 9, 9)]
)
def test_length_and_size_stay(pipeline, frames, height, width):
    result = pipeline(noise_video(frames, height, width), "a red ball")
    assert result.frames.shape == (frames, height, width, 3) and result.frames.dtype == np.uint8
    assert (result.prompt, result.seed, result.config) == ("a red ball", 0, CONFIG)


def test_the_seed_decides(pipeline):
    video = noise_video(5)
    first, again = (pipeline(video, "a red ball", seed=3).frames for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, pipeline(video, "a red ball", seed=4).frames)


def test_source_and_text_reach_the_result(pipeline):
    result = pipeline(noise_video(5), "a red ball").frames
    assert not np.array_equal(result, pipeline(noise_video(5, seed=1), "a red ball").frames)
    assert not np.array_equal(result, pipeline(noise_video(5), "snow at night").frames)
    assert np.array_equal(result, pipeline(noise_video(5), "anything", prompt="a red ball").frames)


def test_progress_counts_every_step_of_every_window(pipeline):
    seen = []
    pipeline(noise_video(9), "snow", overlap=4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 4) for done in range(1, 5)]  # two windows of two latent frames, two steps


@pytest.mark.parametrize(("guidance", "passes"), [(1.0, 1 + 3), (2.0, 1 + 6)])
def test_the_source_runs_once_and_guidance_one_skips_a_branch(pipeline, guidance, passes):
    calls = []
    handle = pipeline.backbone.transformer.register_forward_hook(lambda *_: calls.append(1))
    try:
        pipeline(noise_video(5), "snow", steps=3, guidance=guidance)
    finally:
        handle.remove()
    assert len(calls) == passes


def test_a_stream_gives_the_frames_of_the_whole_video_and_opens_it_as_often_as_needed(pipeline):
    video, opened = noise_video(11, 33, 47), []

    def open_frames():
        opened.append(1)
        return iter(video)

    for keep in (0.0, 20.0):
        opened.clear()
        config = pipeline.config.override(keep=keep)
        streamed = np.stack(list(pipeline.stream(open_frames, "snow", config, seed=3)))
        assert np.array_equal(streamed, pipeline(video, "snow", seed=3, keep=keep).frames)
        assert len(opened) == (1 if keep == 0 else 3)


def test_what_does_not_fit_is_made_anew_with_the_same_result(pipeline, monkeypatch):
    video = noise_video(13)
    kept = pipeline(video, "snow", overlap=4).frames
    monkeypatch.setattr("imvideoedit.editing.offload.free_bytes", lambda device: 0)
    assert np.array_equal(pipeline(video, "snow", overlap=4).frames, kept)


@pytest.mark.parametrize(("cache", "whole"), [(0.0, 1 + 8), (1e-9, 1 + 8), (1e9, 1 + 2)])
def test_the_first_block_cache_skips_the_other_blocks_of_its_own_branch(pipeline, cache, whole):
    """Two windows would be taken for each other if they shared what the cache remembers; so would the branches."""
    video, transformer, calls = noise_video(5), pipeline.backbone.transformer, []
    exact = pipeline(video, "snow", steps=4).frames
    handle = transformer.blocks[-1].ffn.register_forward_hook(lambda *_: calls.append(1))
    try:
        cached = pipeline(video, "snow", steps=4, cache=cache).frames
    finally:
        handle.remove()
    assert len(calls) == whole
    assert np.array_equal(cached, exact) == (cache < 1)
    assert np.array_equal(pipeline(video, "snow", steps=4).frames, exact) and not transformer.is_cache_enabled


def test_the_first_block_cache_takes_a_long_video_window_by_window(pipeline):
    video = np.concatenate([noise_video(5), noise_video(4, seed=1)])
    several = pipeline(video, "snow", steps=3, overlap=0, cache=1e9).frames
    assert several.shape == video.shape
    assert np.array_equal(pipeline(video, "snow", steps=3, overlap=0, cache=1e9).frames, several)


def test_source_guidance_goes_from_the_text_alone_to_more_than_the_source_says(pipeline):
    video, other = noise_video(5), noise_video(5, seed=1)
    ignored = [pipeline(v, "snow", guidance=1.0, source_guidance=0.0).frames for v in (video, other)]
    assert np.array_equal(*ignored)
    frames = {
        scale: pipeline(video, "snow", guidance=1.0, source_guidance=scale).frames.astype(int)
        for scale in (0.0, 1.0, 2.0)
    }
    assert np.array_equal(frames[1.0], pipeline(video, "snow", guidance=1.0).frames)
    farther = np.abs(frames[2.0] - frames[0.0]).mean()
    assert farther > np.abs(frames[1.0] - frames[0.0]).mean() > 0


def test_strength_holds_on_to_the_source(pipeline):
    video = noise_video(5)
    rebuilt = pipeline.backbone.decode_video(pipeline.backbone.encode_video(to_model(list(video))))
    distances = [
        np.abs(pipeline(video, "snow", strength=strength).frames.astype(int) - from_model(rebuilt)).mean()
        for strength in (0.02, 0.5, 1.0)
    ]
    assert distances == sorted(distances) and distances[0] < 0.5 * distances[2]


def test_a_longer_video_of_one_window_begins_as_padded(pipeline):
    """Frames 4 and 5 of a window of four are the same frame, so its edit is that of the padded five."""
    video = noise_video(4)
    padded = np.concatenate([video, video[-1:]])
    assert np.array_equal(pipeline(video, "snow").frames, pipeline(padded, "snow").frames[:4])


def test_an_adapter_file_brings_its_backbone_and_config(pipeline, wan_folder, tmp_path):
    training = {"steps": 100, "sampler": vars(CONFIG)}
    header = AdapterHeader.describe(pipeline.method, pipeline.backbone, training)
    save_adapter(pipeline.method, tmp_path / "a.safetensors", header)
    loaded = EditPipeline.from_pretrained(adapter=tmp_path / "a.safetensors", device="cpu")
    assert loaded.backbone.name == str(wan_folder) and loaded.config == CONFIG
    video = noise_video(5)
    assert np.array_equal(loaded(video, "snow").frames, pipeline(video, "snow").frames)


def test_any_nano_folder_gets_the_grammar(pipeline, tmp_path, capsys):
    """Also one of another name, such as a self-trained one; a Wan backbone takes the instruction as it is."""
    assert not pipeline.backbone.is_nano
    assert pipeline(noise_video(1), "make the red box blue").prompt == "make the red box blue"
    folder = shutil.copytree(WEIGHTS, tmp_path / "my_world")
    nano = EditPipeline.from_pretrained(str(folder), device="cpu")
    assert nano.backbone.is_nano
    video = noise_video(1, 16, 16)
    assert nano(video, "make the red box blue").prompt == "a blue box"
    edited = nano(video, "make the red box blue", source_prompt="day light, a red box")
    assert edited.prompt == "day light, a blue box"
    assert nano(video, "make it rain").prompt == "make it rain"
    assert nano(video, "make it rain", prompt="rain").prompt == "rain"
    adapter = tmp_path / "adapter.safetensors"
    training = {"sampler": {"max_area": 16 * 16, "steps": 1, "guidance": 1.0}}
    save_adapter(nano.method, adapter, AdapterHeader.describe(nano.method, nano.backbone, training))
    Image.fromarray(video[0]).save(tmp_path / "in.png")
    main([str(tmp_path / "in.png"), "make the red box blue", "--adapter", str(adapter), "--device", "cpu"])
    said = capsys.readouterr()
    assert NANO_NOTE in said.err and "prompt: a blue box" in said.out
    facts = read_facts(tmp_path / "in_edited.png")
    assert facts["used"]["prompt"] == "a blue box" and facts["backbone"] == str(folder)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"guidance": 0.5}])
def test_numbers_out_of_range_are_refused(pipeline, wrong):
    with pytest.raises(UserError, match="at least 1"):
        pipeline(noise_video(1), "snow", **wrong)
    with pytest.raises(UserError, match="at least 1"):
        SamplingConfig(**wrong)


@pytest.mark.parametrize("wrong", [{"strength": 0.0}, {"source_guidance": -1.0}, {"overlap": -1}])
def test_other_numbers_out_of_range_are_named(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        SamplingConfig(**wrong)


@pytest.mark.parametrize("shape", [(0, 16, 32, 3), (16, 32, 3), (1, 16, 32, 4)])
def test_what_is_no_video_is_refused(pipeline, shape):
    with pytest.raises(ValueError, match="uint8 video"):
        pipeline(np.zeros(shape, np.uint8), "snow")
    with pytest.raises(ValueError, match="uint8 video"):
        pipeline(np.zeros((1, 16, 32, 3), np.float32), "snow")


@given(
    height=st.integers(1, 4000),
    width=st.integers(1, 4000),
    multiple=st.sampled_from([4, 8, 16]),
    squares=st.integers(1, 1600),
)
def test_fitted_sizes_suit_the_model(height, width, multiple, squares):
    area = squares * multiple * multiple
    tall, wide = fit_size(height, width, area, multiple)
    assert tall % multiple == 0 and wide % multiple == 0 and 0 < tall * wide <= area


@pytest.mark.parametrize(
    ("size", "area", "expected"),
    [((64, 64), 4096, (64, 64)), ((480, 832), 480 * 832, (480, 832)), ((1080, 1080), 4096, (64, 64))],
)
def test_sizes_that_fit_stay(size, area, expected):
    assert fit_size(*size, area, 16) == expected


@given(height=st.integers(300, 2000), width=st.integers(300, 2000))
def test_the_aspect_ratio_is_kept_closely(height, width):
    ratio = max(height, width) / min(height, width)
    tall, wide = fit_size(height, width, 480 * 832, 16)
    if ratio < 3:
        assert abs(math.log(wide / tall * height / width)) < 0.08
        assert tall * wide > 0.75 * 480 * 832


def test_an_area_below_one_square_is_refused():
    with pytest.raises(UserError, match="smallest frame"):
        fit_size(10, 10, 255, 16)


def test_no_gradient_is_kept(pipeline):
    with torch.enable_grad():
        pipeline(noise_video(1), "snow")
    assert all(p.grad is None for p in pipeline.method.parameters())


def test_unknown_sampling_settings_of_a_header_are_one_line(wan_folder, tmp_path):
    backbone = load_backbone(str(wan_folder), device="cpu")
    method = PredictUpdate()
    method.install(backbone.transformer)
    path = tmp_path / "later.safetensors"
    header = AdapterHeader.describe(method, backbone, {"sampler": {"steps": 2, "warp": 3}})
    save_adapter(method, path, header)
    with pytest.raises(UserError, match="later.safetensors has unknown sampling settings .*warp") as raised:
        EditPipeline.from_pretrained(adapter=path)
    assert "\n" not in str(raised.value)
