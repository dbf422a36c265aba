"""An edit by diffusers' ``ModularPipeline`` is ours to the bit, from our parts and from parts that diffusers loads."""

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ModularPipeline
from PIL import Image

from imvideoedit.app.samples import SAMPLES
from imvideoedit.common.errors import UserError
from imvideoedit.editing.diffusers_blocks import EditBlocks, to_diffusers
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.methods.adapter_file import AdapterHeader, save_adapter
from imvideoedit.methods.predict_update import PredictUpdate
from imvideoedit.wan.backbone import load_backbone
from imvideoedit.world.render import render
from tests.conftest import awaken
from tests.test_first_frame import freeprop_adapter

INSTRUCTION = "make the red box blue"
PARTS = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler", "adapter")
SAMPLER = SamplingConfig(max_area=32 * 48, max_frames=5, overlap=0, steps=2, guidance=2.0)


@pytest.fixture(scope="module")
def source() -> np.ndarray:
    return render(SAMPLES[0].scene, 6)


@pytest.fixture(scope="module")
def pictures(source) -> list[Image.Image]:
    return [Image.fromarray(frame) for frame in source]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, wan_folder) -> Path:
    """An adapter in the tiny Wan folder."""
    loaded, path = load_backbone(str(wan_folder), device="cpu"), tmp_path_factory.mktemp("tiny") / "a.safetensors"
    method = PredictUpdate(adapter="lora", rank=4)
    torch.manual_seed(0)
    method.install(loaded.transformer)
    awaken(method)
    save_adapter(method, path, AdapterHeader.describe(method, loaded, {"sampler": vars(SAMPLER)}))
    return path


@pytest.fixture
def loaded(adapter, wan_folder) -> ModularPipeline:
    """A pipeline as who has diffusers makes it."""
    pipe = EditBlocks(adapter).init_pipeline(str(wan_folder))
    pipe.load_components(dtype={"default": torch.float32, "vae": torch.float32})
    return pipe


def frames_of(videos: list[list[Image.Image]]) -> np.ndarray:
    (video,) = videos
    return np.stack([np.asarray(frame) for frame in video])


def test_our_parts_edit_alike_in_diffusers(bundled_pipeline, source, pictures):
    pipe, seen = to_diffusers(bundled_pipeline), []
    assert type(pipe) is ModularPipeline and pipe.transformer is bundled_pipeline.backbone.transformer
    asked = {"instruction": INSTRUCTION, "seed": 3, "steps": 2}
    placement, expected = bundled_pipeline.placement, bundled_pipeline(source, **asked)
    state = pipe(video=pictures, progress=lambda *passes: seen.append(passes), **asked)
    assert np.array_equal(frames_of(state.get("videos")), expected.frames)
    assert state.get("used_prompt") == expected.prompt and seen == [(1, 2), (2, 2)]
    arrays = pipe(video=source, output_type="np", output="videos", **asked)
    tensors = pipe(video=source, output_type="pt", output="videos", **asked)
    assert arrays.shape == (1, *source.shape) and np.array_equal(np.rint(arrays[0] * 255), expected.frames)
    assert torch.equal(tensors[0].movedim(1, -1), torch.from_numpy(arrays[0]))
    assert bundled_pipeline.placement is placement and bundled_pipeline.backbone.name == "nano"


def test_parts_that_diffusers_loads_edit_as_ours_do(loaded, adapter, wan_folder, source):
    ours = EditPipeline.from_pretrained(str(wan_folder), adapter, device="cpu")
    asked = {"video": source, "instruction": "a red ball", "seed": 1, "output": "videos"}
    expected = ours(source, "a red ball", seed=1).frames
    for _ in range(2):  # installed once
        assert np.array_equal(frames_of(loaded(**asked)), expected)
    assert type(loaded.scheduler).__name__ == "UniPCMultistepScheduler" and ours.backbone.shift == 3.0
    assert not np.array_equal(frames_of(loaded(shift=9.0, **asked)), expected)


def test_components_and_inputs_are_declared(adapter, tmp_path):
    blocks = EditBlocks(adapter)
    assert tuple(spec.name for spec in blocks.expected_components) == PARTS
    assert {"video", "instruction", "mask", *vars(SAMPLER)} <= set(blocks.input_names)
    assert set(blocks.required_inputs) == {"video", "instruction"} and "videos" in blocks.output_names
    assert all(param.description for param in blocks.inputs) and "TODO" not in blocks.doc
    framed = EditBlocks(freeprop_adapter("nano", tmp_path / "framed.safetensors", "bundled"))
    assert set(framed.required_inputs) == {"video", "instruction", "first_frame"}


def test_a_changed_part_is_used(loaded, source):
    before = frames_of(loaded(video=source, instruction="snow", output="videos"))
    vae = copy.deepcopy(loaded.vae)
    awaken(vae)
    loaded.update_components(vae=vae)
    assert not np.array_equal(frames_of(loaded(video=source, instruction="snow", output="videos")), before)


def test_a_mask_is_a_picture_and_outside_it_every_pixel_stays(bundled_pipeline, source, pictures):
    pipe = to_diffusers(bundled_pipeline)
    mask = np.zeros((64, 64, 3), np.uint8)
    mask[:, :24, 0] = 255  # red: the brightest channel counts
    given = {"mask": Image.fromarray(mask), "mask_feather": 0, "keep": 0}
    edited = frames_of(pipe(video=pictures, instruction=INSTRUCTION, output="videos", **given))
    assert np.array_equal(edited[:, :, 24:], source[:, :, 24:]) and not np.array_equal(edited, source)


def test_what_is_wrong_is_one_line(loaded, adapter, wan_folder, bundled_pipeline, source, pictures):
    pipe = to_diffusers(bundled_pipeline)
    with pytest.raises(UserError, match="guidance is 0.5; it must be at least 1"):
        pipe(video=source, instruction=INSTRUCTION, guidance=0.5)
    with pytest.raises(UserError, match="output_type is 'gif'; choose one of pil, np, pt"):
        pipe(video=source, instruction=INSTRUCTION, output_type="gif")
    with pytest.raises(ValueError, match="'instruction' is missing"):
        pipe(video=source)
    with pytest.raises(UserError, match="does not know the input reference; it takes none"):
        pipe(video=source, instruction=INSTRUCTION, reference=pictures[0])
    unloaded = EditBlocks(adapter).init_pipeline()
    unloaded.load_components()
    with pytest.raises(UserError, match="has no transformer, vae, text_encoder, tokenizer, scheduler; call load_comp"):
        unloaded(video=source, instruction="snow")
    with pytest.raises(UserError, match="no adapter; call load_components"):
        EditBlocks(adapter).init_pipeline(str(wan_folder))(video=source, instruction="snow")
    pipe.update_components(transformer=loaded.transformer)
    with pytest.raises(UserError, match="adapter is in another transformer"):
        pipe(video=source, instruction=INSTRUCTION)
    with pytest.raises(UserError, match="backbone"), warnings.catch_warnings(action="ignore"):
        wrong = EditBlocks("bundled").init_pipeline(str(wan_folder))
        wrong.load_components()
        wrong(video=source, instruction="snow")


def test_a_pipeline_that_moves_block_by_block_is_refused(bundled_pipeline):
    low = copy.copy(bundled_pipeline)
    low.placement = copy.copy(bundled_pipeline.placement)
    low.placement.level = "low"
    with pytest.raises(UserError, match="offload level low; load it with memory full"):
        to_diffusers(low)
