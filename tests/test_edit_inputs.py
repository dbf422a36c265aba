"""Inputs of an edit in Python: what lies outside a mask stays the source's, and a method gets what it declares."""

import weakref
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import EditBatch, Input
from imvideoedit.editing.compositing import BLOCK, REACH
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.video.geometry import resized, to_model
from imvideoedit.wan.backbone import Backbone, load_backbone
from tests.conftest import awaken

CONFIG = SamplingConfig(max_area=16 * 32, max_frames=49, steps=1, guidance=1.0)


class Asking(PredictUpdate):
    """Declares an input of every kind, and remembers what it got."""

    name = "asking"
    inputs: ClassVar = (
        Input("first_frame", "image"),
        Input("mask", "mask"),
        Input("reference", "image", required=False),
        Input("depth", "video", required=False),
        Input("pixels", "video", "raw", required=False),
        Input("look", "image", "raw", required=False),
        Input("style", "text", required=False),
    )
    got: dict[str, torch.Tensor]

    def condition(self, transformer, batch: EditBatch, keep=None):
        self.got = dict(batch.conditions)
        return super().condition(transformer, batch, keep)


def noise(frames: int, height: int = 16, width: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)


def pipeline_of(kind: type[PredictUpdate], wan_folder) -> EditPipeline:
    backbone = load_backbone(str(wan_folder), device="cpu")
    method = kind()
    method.install(backbone.transformer)
    awaken(method)
    return EditPipeline(backbone, method.requires_grad_(False), CONFIG)


@pytest.fixture(scope="module")
def plain(wan_folder) -> EditPipeline:
    return pipeline_of(PredictUpdate, wan_folder)


@pytest.fixture(scope="module")
def asking(wan_folder) -> EditPipeline:
    return pipeline_of(Asking, wan_folder)


def dilated(mask: np.ndarray, feather: float) -> np.ndarray:
    """Where a pixel is nearer to the mask than ``feather``, or in it; measured pixel by pixel."""
    rows, columns = np.nonzero(mask)
    near = mask.copy()
    for row, column in np.ndindex(mask.shape):
        near[row, column] |= bool((((rows - row) ** 2 + (columns - column) ** 2) < feather**2).any())
    return near


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    frames=st.integers(1, 6),
    height=st.integers(8, 30),
    width=st.integers(8, 30),
    moving=st.booleans(),
    times=st.sampled_from([1, 2, 3]),
    peak=st.sampled_from([True, 1, 255, 7, 1.0, 0.2, 65535]),
    feather=st.sampled_from([0, 1, 3.5]),
    keep=st.sampled_from([0, 20]),
    seed=st.integers(0, 9),
)
def test_outside_the_mask_every_pixel_is_the_sources(
    plain, frames, height, width, moving, times, peak, feather, keep, seed
):
    rng = np.random.default_rng(seed)
    inside = rng.random((frames if moving else 1, height, width)) < 0.03
    video = noise(frames, height, width, seed)
    mask = inside.repeat(times, axis=1).repeat(times, axis=2) * np.array(peak)
    given = {"mask": mask if moving else mask[0]}
    out = plain(video, "snow", inputs=given, mask_feather=feather, keep=keep).frames
    free = plain(video, "snow", keep=keep).frames
    shares = [dilated(each, feather) for each in inside]
    for n in range(frames):
        near, hard = shares[n if moving else 0], inside[n if moving else 0]
        assert np.array_equal(out[n][~near], video[n][~near])
        assert np.array_equal(out[n][hard], free[n][hard])


def test_the_frame_between_mask_and_source_is_a_mixture_of_both(plain):
    video = np.full((1, 16, 32, 3), 100, np.uint8)
    mask = np.zeros((16, 32), bool)
    mask[4:12, 4:12] = True
    free = plain(video, "snow").frames.astype(int)
    out = plain(video, "snow", inputs={"mask": mask}, mask_feather=6).frames.astype(int)
    ring = dilated(mask, 6) & ~mask
    assert (np.abs(out - free) + np.abs(out - video) == np.abs(free - video))[0, ring].all()
    changed = np.abs(free - video)[0, ring].max(axis=1) > 9
    assert ((out != video) & (out != free))[0, ring][changed].any()


@pytest.mark.parametrize("keep", [0.0, 20.0])
def test_a_mask_for_a_long_video_streams(plain, keep):
    """Never more frames of source and mask are alive than a few blocks, and each frame has its own mask."""
    frames = 4 * BLOCK + 3 * REACH
    alive, most = [0], [0]

    def gone() -> None:
        alive[0] -= 1

    def tracked(values: np.ndarray) -> np.ndarray:
        frame = values.copy()
        weakref.finalize(frame, gone)
        alive[0] += 1
        most[0] = max(most[0], alive[0])
        return frame

    video = noise(frames, 8, 16)
    masks = np.zeros((frames, 8, 16), np.uint8)
    for n in range(frames):
        masks[n, :, n % 16] = 255
    opened = []

    def open_masks():
        opened.append(1)
        return map(tracked, masks)

    config = CONFIG.override(keep=keep, mask_feather=0, max_area=256)
    streamed = plain.stream(lambda: map(tracked, video), "snow", config, inputs={"mask": open_masks})
    out = np.stack([np.array(frame) for frame in streamed])
    assert np.array_equal(out[masks == 0], video[masks == 0]) and not np.array_equal(out, video)
    assert 2 < most[0] <= 2 * (BLOCK + 2 * REACH) < frames and len(opened) == 3  # its size, its length, its pixels


def test_a_mask_that_is_nowhere_leaves_the_source(plain):
    video = noise(2)
    assert np.array_equal(plain(video, "snow", inputs={"mask": np.zeros((16, 32))}).frames, video)
    everywhere = plain(video, "snow", inputs={"mask": np.ones((2, 16, 32))}).frames
    assert np.array_equal(everywhere, plain(video, "snow").frames)


def test_a_method_gets_what_it_declares_at_the_models_size(asking):
    video, first, depth = noise(6, 24, 48), noise(1, 24, 48, seed=1)[0], noise(6, 24, 48, seed=2)
    mask = np.zeros((6, 24, 48), bool)
    for n in range(6):
        mask[n, :, 4 * n : 4 * n + 12] = True
    inputs = {"first_frame": first, "mask": mask, "depth": depth, "pixels": depth, "look": first, "style": "a red ball"}
    asking(video, "snow", inputs=inputs)
    got, backbone = asking.method.got, asking.backbone
    assert got.keys() == inputs.keys()
    frames = 9  # 6, padded to 4 k + 1
    at_size = backbone.encode_video(shrunk([first]))
    assert torch.equal(got["first_frame"], at_size) and at_size.shape[2] == 1
    padded = [*depth, *depth[-1:].repeat(3, axis=0)]
    assert torch.allclose(got["depth"], backbone.encode_video(shrunk(padded)), atol=1e-5)
    assert got["depth"].shape[2] == 3
    assert torch.equal(got["pixels"], shrunk(padded)) and got["look"].shape == (1, 3, 1, 16, 32)
    assert got["mask"].shape == (1, 1, frames, 16, 32) and got["mask"].dtype == torch.float32
    assert set(got["mask"].unique().tolist()) == {0.0, 1.0}
    assert torch.equal(got["mask"][0, 0, 5], got["mask"][0, 0, 8])
    # Every third pixel of three goes: of a stripe's 12 columns 8 are left, at two thirds of their place.
    columns = (torch.arange(32) + 0.5) * 1.5
    for n in range(6):
        wanted = (columns >= 4 * n) & (columns < 4 * n + 12)
        assert torch.equal(got["mask"][0, 0, n, 7] > 0, wanted)
    assert torch.equal(got["style"], backbone.encode_text(["a red ball"]))


def shrunk(frames) -> torch.Tensor:
    """As the model takes the source's frames: [-1, 1] at its size."""
    return to_model(list(resized(frames, (16, 32))))


def test_a_still_mask_holds_for_all_frames_and_optional_inputs_may_miss(asking):
    still = np.zeros((16, 32), np.uint8)
    still[2:9, 5:20] = 1
    asking(noise(3), "snow", inputs={"first_frame": noise(1)[0], "mask": still})
    got = asking.method.got
    assert got.keys() == {"first_frame", "mask"} and got["mask"].shape == (1, 1, 5, 16, 32)
    assert all(torch.equal(frame, torch.from_numpy(still).float()) for frame in got["mask"][0, 0])


def test_a_reference_is_cropped_to_the_model_and_a_first_frame_to_the_source(asking):
    """Both are marked by a bright middle; of the reference, the sides are cut off."""
    reference = np.zeros((16, 96, 3), np.uint8)
    reference[:, 32:64] = 255
    first = noise(1, 161, 320)[0]  # within 2 % of the source's aspect
    inputs = {"first_frame": first, "mask": np.ones((16, 32)), "reference": reference, "look": reference}
    asking(noise(1), "snow", inputs=inputs)
    assert (asking.method.got["look"] == 1).all() and asking.method.got["look"].shape == (1, 3, 1, 16, 32)
    white = torch.ones(1, 3, 1, 16, 32)
    assert torch.allclose(asking.method.got["reference"], asking.backbone.encode_video(white), atol=1e-5)
    assert asking.method.got["first_frame"].shape == (1, 4, 1, 2, 4)


FIRST, MASK = noise(1)[0], np.ones((16, 32))


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "method asking needs the input first_frame"),
        ({"first_frame": FIRST}, "needs the input mask"),
        ({"first_frame": FIRST, "mask": MASK, "refrence": FIRST}, "does not know the input refrence; it takes depth, "),
        ({"first_frame": noise(1, 32, 16)[0], "mask": MASK}, "first_frame is 16x32, but the source is 32x16; crop"),
        ({"first_frame": FIRST, "mask": MASK.T}, "mask is 16x32, but the source is 32x16"),
        ({"first_frame": FIRST, "mask": MASK[None].repeat(2, 0)}, "mask has 2 frames, but the video has 3"),
        ({"first_frame": FIRST, "mask": MASK[None].repeat(4, 0)}, "mask has 4 frames, but the video has 3"),
        ({"first_frame": FIRST, "mask": MASK[None]}, "mask has 1 frames, but the video has 3"),
        ({"first_frame": FIRST, "mask": MASK, "depth": noise(2)}, "depth has 2 frames, but the video has 3"),
        ({"first_frame": FIRST, "mask": MASK, "depth": noise(3, 32, 16)}, "depth is 16x32"),
    ],
)
def test_what_does_not_fit_is_one_line_before_the_model_works(asking, monkeypatch, inputs, words):
    monkeypatch.setattr(Backbone, "encode_parts", None)
    monkeypatch.setattr(Backbone, "encode_text", None)
    with pytest.raises(UserError, match=words) as caught:
        asking(noise(3), "snow", inputs=inputs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"first_frame": FIRST.astype(float)}, "first_frame must be uint8"),
        ({"first_frame": FIRST[None]}, "first_frame must be uint8"),
        ({"first_frame": "a.png"}, "first_frame is a image, not str"),
        ({"mask": MASK[..., None, None]}, "mask must be a mask of numbers"),
        ({"mask": np.full((16, 32), np.nan)}, "mask must be a mask of numbers"),
        ({"mask": MASK.astype(str)}, "mask must be a mask of numbers"),
        ({"style": MASK}, "style is a text, not ndarray"),
    ],
)
def test_arrays_of_another_kind_are_refused(asking, inputs, words):
    with pytest.raises(ValueError, match=words):
        asking(noise(3), "snow", inputs={"first_frame": FIRST, "mask": MASK} | inputs)


def test_a_method_without_inputs_takes_a_mask_and_nothing_else(plain):
    with pytest.raises(UserError, match="does not know the input first_frame; it takes none"):
        plain(noise(1), "snow", inputs={"first_frame": FIRST})
    with pytest.raises(UserError, match="mask_feather is -1"):
        plain(noise(1), "snow", inputs={"mask": MASK}, mask_feather=-1)


@pytest.mark.parametrize("count", [2, 4])
def test_a_stream_names_a_mask_of_another_length_before_the_model_denoises(plain, monkeypatch, count):
    monkeypatch.setattr("imvideoedit.editing.pipeline.Denoiser", None)
    masks = np.full((count, 16, 32), 255, np.uint8)
    with pytest.raises(UserError, match="but the source has 3; give one for each"):
        list(plain.stream(lambda: noise(3), "snow", CONFIG, inputs={"mask": lambda: masks}))
    with pytest.raises(ValueError, match="the input mask is a mask, not str"):
        list(plain.stream(lambda: noise(3), "snow", CONFIG, inputs={"mask": "box:0,0,1,1"}))
