"""The mask of a clip that is fitted: followed from one still, or taken as it is, and stored without loss."""

import importlib.util
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.editing.fitted_clip import load_masks, masks_hash
from imvideoedit.fitting.masks import make_mask, save_masks, vanishing
from imvideoedit.fitting.tracking import track
from imvideoedit.video.reader import Clip, write_video
from imvideoedit.world.inputs import mask as exact_mask
from imvideoedit.world.render import render
from imvideoedit.world.scenes import Scene, Thing

FRAMES, SIZE = 17, (64, 64)
CPU = torch.device("cpu")


def scene(motion: str, kind: str = "star", camera: str = "static") -> tuple[np.ndarray, np.ndarray]:
    """A clip of the nano world and the exact mask of its moving thing: uint8 ``[F, H, W, 3]``, bool ``[F, H, W]``."""
    thing = Thing(kind, "orange", "spotted", size="large", motion=motion, x=0.4, y=0.5)
    other = Thing("box", "cyan", x=0.8, y=0.15, size="small")
    made = Scene("teal", "checkered", (thing, other), camera=camera)
    gone = Scene("teal", "checkered", (other,), camera=camera)
    return render(made, FRAMES, SIZE), exact_mask(made, gone, FRAMES, SIZE)


def overlap(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Intersection over union of each frame."""
    return (found & exact).sum((1, 2)) / np.maximum((found | exact).sum((1, 2)), 1)


@pytest.mark.parametrize("motion", ["moving right", "circling", "bouncing"])
def test_a_still_mask_follows_its_thing(motion):
    frames, exact = scene(motion)
    found = np.stack(list(track(frames, exact[0].astype(np.uint8)))) > 0
    assert found.shape == exact.shape and np.array_equal(found[0], exact[0])
    still = overlap(np.repeat(exact[:1], FRAMES, axis=0), exact)
    assert overlap(found, exact).mean() > 0.8 and overlap(found, exact).mean() > still.mean() + 0.2


def test_a_camera_that_zooms_takes_the_mask_along():
    frames, exact = scene("still", camera="zoom in")
    found = np.stack(list(track(frames, exact[0].astype(np.uint8)))) > 0
    assert overlap(found, exact).mean() > 0.8 and found[-1].sum() > 1.2 * found[0].sum()


def test_a_box_stays_a_box_around_its_thing():
    frames, exact = scene("moving right")
    rows, columns = np.nonzero(exact[0])
    box = np.zeros(SIZE, np.uint8)
    box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = 255
    for found, wanted in zip(track(frames, box, box=True), exact, strict=True):
        assert (found > 0)[wanted].mean() > 0.8
        rows, columns = np.nonzero(found)
        assert (found[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] == 255).all()


def test_where_nothing_moves_the_mask_is_the_same():
    frames, exact = scene("still", kind="box")
    for before, after in pairwise(track(frames, exact[0].astype(np.uint8))):
        assert np.array_equal(before, after)


def test_a_thing_that_leaves_takes_its_mask_with_it():
    frames = np.full((8, 32, 32, 3), 60, np.uint8)
    for number in range(8):
        frames[number, 10:20, min(16 + 3 * number, 32) : 32 if number > 1 else 26 + 3 * number] = (250, 240, 20)
    mask = np.zeros((32, 32), np.uint8)
    mask[10:20, 16:26] = 255
    found = list(track(frames, mask))
    assert found[-1].mean() < 0.2 * found[0].mean()


def test_large_frames_are_followed_in_small_ones_and_the_mask_has_their_size():
    frames, exact = scene("moving right")
    large = np.repeat(np.repeat(frames[:5], 6, axis=1), 6, axis=2)
    wide = np.repeat(np.repeat(exact[:5], 6, axis=1), 6, axis=2)
    found = np.stack(list(track(large, wide[0].astype(np.uint8)))) > 0
    assert found.shape == wide.shape and overlap(found, wide).mean() > 0.8


@pytest.fixture
def clip(tmp_path):
    write_video(tmp_path / "clip.mp4", scene("moving right")[0], 8, codec="lossless")
    return Clip(tmp_path / "clip.mp4")


def test_a_mask_for_each_frame_is_taken_as_it_is(clip, tmp_path):
    exact = scene("moving right")[1]
    save_masks(np.where(exact, np.uint8(255), np.uint8(0)), tmp_path / "given")
    mask = make_mask(str(tmp_path / "given"), clip, "auto", None, CPU)
    assert np.array_equal(mask.frames > 0, exact) and "one a frame" in mask.how
    save_masks(mask.frames, tmp_path / "kept")
    assert np.array_equal(load_masks(tmp_path / "kept"), mask.frames)
    assert masks_hash(mask.frames) == masks_hash(load_masks(tmp_path / "kept")) != masks_hash(mask.frames[::-1])


def test_a_box_is_followed_and_it_is_said_by_what(clip):
    mask = make_mask("box:15,20,24,24", clip, "flow", None, CPU)
    assert mask.frames.shape == (FRAMES, *SIZE) and "optical flow on the CPU" in mask.how


def test_an_empty_mask_after_a_full_one_is_noticed():
    full, empty = np.ones((2, 4), np.uint8), np.zeros((2, 4), np.uint8)
    assert vanishing([full, full, empty]) == 2 and vanishing([full, full]) is None and vanishing([empty, full]) is None


def test_sam2_without_weights_is_refused(clip, tmp_path, monkeypatch):
    monkeypatch.setattr("imvideoedit.fitting.masks._cached", lambda: None)
    with pytest.raises(UserError, match="--sam2 FOLDER"):
        make_mask("box:1,1,9,9", clip, "sam2", None, CPU)
    with pytest.raises(UserError, match="SAM 2"):
        make_mask("box:1,1,9,9", clip, "auto", str(tmp_path), CPU)


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="SAM 2's processors need torchvision")
def test_sam2_of_random_weights_gives_a_mask_for_each_frame(clip, tmp_path):
    tiny_sam2(tmp_path / "sam2")
    exact = scene("moving right")[1]
    Image.fromarray(exact[0].astype(np.uint8) * 255).save(tmp_path / "mask.png")
    for given in (str(tmp_path / "mask.png"), "box:15,20,24,24"):
        mask = make_mask(given, clip, "auto", str(tmp_path / "sam2"), CPU)
        assert mask.frames.shape == (FRAMES, *SIZE) and set(np.unique(mask.frames)) <= {0, 255}
        assert "SAM 2 (sam2)" in mask.how


def tiny_sam2(folder) -> None:
    """A folder of SAM 2 with tiny random networks of the real classes."""
    from transformers import Sam2ImageProcessor, Sam2VideoConfig, Sam2VideoModel, Sam2VideoProcessor
    from transformers import Sam2VideoVideoProcessor as VideoProcessor

    side = {"height": 128, "width": 128}
    backbone = {
        **{"model_type": "sam2_hiera_det_model", "hidden_size": 8, "num_attention_heads": 1, "image_size": [128, 128]},
        **{"blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64]},
        **{"num_attention_heads_per_stage": [1, 2, 4, 8], "window_size_per_stage": [8, 4, 4, 4]},
        **{"global_attention_blocks": [3], "window_positional_embedding_background_size": [2, 2]},
    }
    vision = {
        **{"backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8], "fpn_hidden_size": 128},
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
    }
    decoder = {"hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 128, "image_size": 128, "mask_input_channels": 4},
        mask_decoder_config=decoder,
        image_size=128,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[8, 8],
        memory_encoder_hidden_size=128,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=32,
        memory_fuser_num_layers=1,
    )
    torch.manual_seed(0)
    Sam2VideoModel(config).save_pretrained(folder)
    images = Sam2ImageProcessor(size=side, mask_size={"height": 32, "width": 32})
    Sam2VideoProcessor(images, VideoProcessor(size=side)).save_pretrained(folder)
