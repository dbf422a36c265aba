"""Bases and adapters in ComfyUI's folders and cache, and what is saved of an edit."""

import copy
import io
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from imvideoedit.comfy.models import Adapter, Base, Choice
from imvideoedit.common.bundled import ADAPTER
from imvideoedit.editing.fitted_clip import FittedClip
from imvideoedit.methods.adapter_file import save_adapter
from imvideoedit.methods.adapter_header import read_header
from imvideoedit.video.images import load_rgb
from imvideoedit.video.masks import list_images
from imvideoedit.video.pngs import png_texts
from imvideoedit.video.reader import Clip, write_video
from tests.comfy_executor import Executor
from tests.comfy_host import Comfy
from tests.comfy_workflows import FRAMES, INSTRUCTION, SOURCE, changed, example, new_executor, saved, with_tensors
from tests.test_first_frame import freeprop_adapter


@pytest.fixture(scope="module")
def expected(bundled_pipeline) -> np.ndarray:
    return bundled_pipeline(SOURCE, INSTRUCTION, seed=0).frames


@pytest.fixture
def executor(tmp_path, monkeypatch) -> Executor:
    return new_executor(tmp_path / "ComfyUI", monkeypatch)


@pytest.fixture
def comfy(executor) -> Comfy:
    return executor.comfy


@pytest.fixture
def workflow():
    return example()


def test_adapters_take_turns_in_one_base(comfy, executor, workflow, expected, tmp_path):
    freeprop_adapter("nano", comfy.root / "models/imvideoedit/mine/freeprop.safetensors", "bundled")
    both = with_tensors(workflow, tmp_path, first_frame=torch.from_numpy(SOURCE[:1]) / 255.0)
    both["5"]["inputs"]["adapter"] = ["7", 0]
    name = "mine/freeprop.safetensors"
    both["7"] = {"class_type": "ImVideoEditLoadAdapter", "inputs": {**both["4"]["inputs"], "adapter": name}}
    both["8"] = copy.deepcopy(workflow["5"])
    both["10"] = copy.deepcopy(workflow["6"])
    both["10"]["inputs"]["video"] = ["8", 0]
    needs = changed(both, {"5.first_frame": None})
    del needs["10"]
    run = executor.run(needs)
    assert run.error == "the adapter freeprop.safetensors needs the input first_frame (image), which is not given"
    assert executor.run(both).error == ""
    first, second = (saved(executor, f"imvideoedit/edit_0000{n}_.mkv") for n in (1, 2))
    assert np.array_equal(second, expected) and not np.array_equal(first, expected)
    executor.run(changed(workflow, {"5.seed": 1}))  # which has no use for the other adapter
    run = executor.run(changed(both, {"6.filename_prefix": "again"}))
    assert {"5", "7"} < set(run.ran) and "3" not in run.ran
    assert np.array_equal(saved(executor, "again_00001_.mkv"), first)


def test_an_adapter_that_was_trained_again_is_loaded_again(comfy, executor, workflow):
    path = comfy.root / "models/imvideoedit/mine.safetensors"
    shutil.copy(ADAPTER, path)
    mine = changed(workflow, {"4.adapter": path.name})
    executor.run(mine)
    assert executor.run(mine).ran == []
    freeprop_adapter("nano", path, "bundled")
    run = executor.run(mine)
    assert run.ran == ["4"] and run.failed == "5" and "needs the input first_frame" in run.error


def test_a_base_is_a_folder_in_models_and_must_be_the_adapters(comfy, executor, workflow, wan_folder):
    shutil.copytree(wan_folder, comfy.root / "models/diffusers/tiny")
    freeprop_adapter(str(wan_folder), comfy.root / "models/imvideoedit/tiny.safetensors", [[1, 0]] * 2)
    tiny = changed(workflow, {"3.base": "tiny"})
    run = executor.run(tiny)
    assert run.failed == "4" and "backbone" in run.error and "\n" not in run.error
    run = executor.run(changed(tiny, {"4.adapter": "tiny.safetensors"}))
    assert run.failed == "5" and "needs the input first_frame" in run.error
    (comfy.root / "models/diffusers/tiny/transformer/config.json").touch()
    assert executor.run(changed(tiny, {"4.adapter": "tiny.safetensors"})).ran[:2] == ["3", "4"]


def test_a_base_whose_blocks_were_moved_one_by_one_is_loaded_anew_for_another_adapter(executor, workflow, expected):
    assert executor.run(changed(workflow, {"4.memory": "low"})).error == ""
    (base,) = [made[0] for made in executor.outputs.values() if made and isinstance(made[0], Base)]
    before = base.pipeline(base_choice(executor)).backbone.transformer
    assert executor.run(workflow).ran == ["4", "5", "6"]
    assert base.pipeline(base_choice(executor)).backbone.transformer is not before
    assert np.array_equal(saved(executor, "imvideoedit/edit_00002_.mkv"), expected)


def base_choice(executor):
    """What the node that loads an adapter has chosen."""
    (adapter,) = [made[0] for made in executor.outputs.values() if made and isinstance(made[0], Adapter)]
    return adapter.choice


def test_a_base_waits_in_the_computers_memory_for_edits_on_its_device(comfy):
    base = Base("nano", torch.device("meta"))
    pipeline = base.pipeline(Choice(ADAPTER, "", "auto", "native"))
    assert pipeline.placement.device.type == "meta" and pipeline.backbone.device.type == "cpu"


def test_an_adapter_that_was_fitted_to_one_clip_has_its_prompts(comfy, executor, workflow, bundled_pipeline):
    clip = FittedClip("a.mp4", "0" * 32, 6, None, None, "0" * 16, "a blue box", "sks ")
    header = read_header(ADAPTER)
    training = header.training | clip.facts()
    path = comfy.root / "models/imvideoedit/fitted.safetensors"
    save_adapter(bundled_pipeline.method, path, replace(header, training=training))
    fitted = changed(workflow, {"4.adapter": path.name, "5.instruction": ""})
    for values, prompt in (({}, "sks a blue box"), ({"5.instruction": "a green box"}, "sks a green box")):
        assert executor.run(changed(fitted, values)).error == ""
        assert prompt in [made[1] for made in executor.outputs.values() if len(made) == 2]


def test_pictures_and_rates_are_saved_without_a_source(comfy, executor, workflow, expected):
    comfy.args.disable_metadata = True
    run = executor.run(changed(workflow, {"6.source": None, "6.format": "png", "6.filename_prefix": "a%width%"}))
    names = [f"{index:06d}.png" for index in range(FRAMES)]
    folder = "a64_00001_"
    assert run.shown["6"] == {"images": [{"filename": n, "subfolder": folder, "type": "output"} for n in names]}
    frames = [load_rgb(path) for path in list_images(comfy.root / "output" / folder)]
    assert np.array_equal(frames, expected) and png_texts(comfy.root / "output" / folder) == {}
    executor.run(changed(workflow, {"6.source": None, "6.fps": 12.5, "6.filename_prefix": "b/c"}))
    assert Clip(comfy.root / "output/b/c_00001_.mkv").info.fps == 12.5


def test_a_source_may_be_in_memory_and_must_have_the_frames(comfy, executor, workflow):
    held = io.BytesIO((comfy.root / "input/red_box.mkv").read_bytes())

    class Held(executor.nodes["LoadVideo"]):
        def load(self, file):
            return (SimpleNamespace(get_stream_source=lambda: held),)

    executor.nodes["Held"] = Held
    mine = changed(workflow, {"6.source": ["30", 0]})
    mine["30"] = {"class_type": "Held", "inputs": {"file": "red_box.mkv"}}
    assert executor.run(mine).error == ""
    assert Clip(comfy.root / "output/imvideoedit/edit_00001_.mkv").info.fps == 8
    write_video(comfy.root / "input/short.mkv", SOURCE[:4], fps=8, codec="lossless")
    other = changed(workflow, {"6.source": ["30", 0]})
    other["30"] = {"class_type": "LoadVideo", "inputs": {"file": "short.mkv"}}
    run = executor.run(other)
    assert run.failed == "6"
    assert run.error.startswith("the source has 4 frames, but there are 6 to save; connect the video that was edited")
