"""The nodes in workflows that run by ComfyUI's rules: load, adapt, edit, save; cancelled, and repeated."""

import json

import numpy as np
import pytest
import torch

from imvideoedit.comfy.link import EXAMPLE
from imvideoedit.comfy.models import Adapter
from imvideoedit.comfy.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from imvideoedit.common.bundled import ADAPTER
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.methods.adapter_header import read_header
from imvideoedit.video.reader import Clip, read_metadata
from tests.comfy_executor import Executor
from tests.comfy_host import Comfy
from tests.comfy_workflows import (
    API,
    FRAMES,
    INSTRUCTION,
    SOURCE,
    changed,
    example,
    new_executor,
    saved,
    with_settings,
    with_tensors,
)


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


def models(executor: Executor):
    """The adapters in the cache."""
    return [made[0] for made in executor.outputs.values() if made and isinstance(made[0], Adapter)]


def test_the_example_loads_edits_and_saves(comfy, executor, workflow, expected):
    run = executor.run(workflow, {"nodes": []})
    assert (run.failed, run.error) == (None, "") and set(run.ran) == set(workflow) and run.ran[-2:] == ["5", "6"]
    steps = read_header(ADAPTER).training["sampler"]["steps"]
    assert comfy.progress == [(done, steps) for done in range(1, steps + 1)]
    assert comfy.freed == 1
    path = comfy.root / "output/imvideoedit/edit_00001_.mkv"
    assert run.shown["6"]["images"] == [
        {"filename": "edit_00001_.mkv", "subfolder": "imvideoedit", "type": "output"},
    ]
    assert np.array_equal(saved(executor), expected)
    original, kept = Clip(comfy.root / "input/red_box.mkv").info, Clip(path).info
    assert (kept.fps, kept.frames) == (original.fps, original.frames) == (8, FRAMES)
    texts = read_metadata(path)
    assert json.loads(texts["prompt"]) == workflow and json.loads(texts["workflow"]) == {"nodes": []}


def test_a_cancelled_edit_leaves_nothing_and_the_next_one_finds_the_models_loaded(comfy, executor, workflow, expected):
    comfy.on_progress = lambda value: setattr(comfy, "interrupt", value == 2)
    run = executor.run(workflow)
    assert run.interrupted == "5" and run.failed is None and comfy.progress[-1][0] == 2
    assert comfy.outputs() == [] and not comfy.interrupt
    (adapter,) = models(executor)
    transformer = adapter.pipeline().backbone.transformer
    comfy.on_progress = lambda value: None
    run = executor.run(workflow)
    assert run.ran == ["5", "6"]
    assert models(executor) == [adapter] and adapter.pipeline().backbone.transformer is transformer
    assert np.array_equal(saved(executor), expected)


def test_cancel_works_while_frames_are_read_and_written(comfy, executor, workflow):
    executor.run(workflow)
    assert executor.run(changed(workflow, {"5.seed": 1})).ran == ["5", "6"]
    asked, before = comfy.asked, comfy.outputs()
    in_save = asked - FRAMES  # before the node, and before each frame
    for moment, node in ((2, "5"), (FRAMES + 2, "5"), (in_save - 1, "5"), (in_save + 1, "6"), (asked, "6")):
        comfy.cancel_at = moment
        run = executor.run(changed(workflow, {"5.seed": moment}))
        assert (run.interrupted, run.failed) == (node, None)
        assert comfy.outputs() == before


def test_what_did_not_change_is_not_run_again(comfy, executor, workflow):
    executor.run(workflow)
    assert executor.run(workflow).ran == []
    assert executor.run(changed(workflow, {"5.instruction": "remove the red box"})).ran == ["5", "6"]
    assert executor.run(changed(workflow, {"6.format": "png"})).ran == ["5", "6"]  # what that run used alone is kept
    assert executor.run(changed(workflow, {"6.format": "mp4, h264"})).ran == ["6"]


def test_settings_override_the_adapters_own_and_a_wrong_one_is_one_line(comfy, executor, workflow, expected):
    executor.run(with_settings(workflow))
    assert np.array_equal(saved(executor), expected)
    comfy.progress.clear()
    assert executor.run(with_settings(workflow, steps=2, solver="unipc")).error == ""
    assert comfy.progress == [(1, 2), (2, 2)]
    run = executor.run(with_settings(workflow, guidance=0.5))
    assert (run.failed, run.error) == ("9", "guidance is 0.5; it must be at least 1, at most a million")


def test_the_nodes_show_ranges_defaults_and_tooltips(comfy):
    assert NODE_CLASS_MAPPINGS.keys() == NODE_DISPLAY_NAME_MAPPINGS.keys()
    for kind in NODE_CLASS_MAPPINGS.values():
        types = kind.INPUT_TYPES()
        assert kind.CATEGORY and kind.DESCRIPTION and callable(getattr(kind, kind.FUNCTION))
        for name, (shown, options) in (types.get("required", {}) | types.get("optional", {})).items():
            assert options.get("tooltip") or shown == "IMVIDEOEDIT_ADAPTER", name
            if isinstance(shown, list):
                assert options["default"] in shown
            if shown in ("INT", "FLOAT"):
                assert options["min"] <= options["default"] <= options["max"]
        json.dumps(types, allow_nan=False)
    settings = NODE_CLASS_MAPPINGS["ImVideoEditSettings"].INPUT_TYPES()["required"]
    assert settings.keys() == set(vars(SamplingConfig()))


def test_outside_a_mask_every_pixel_is_the_sources(comfy, executor, workflow, tmp_path):
    mask = torch.zeros(1, 64, 64)
    mask[:, :, :24] = 1
    masked = with_settings(with_tensors(workflow, tmp_path, mask=mask), mask_feather=0, keep=0)
    assert executor.run(masked).error == ""
    edited = saved(executor)
    assert np.array_equal(edited[:, :, 24:], SOURCE[:, :, 24:])
    assert not np.array_equal(edited, SOURCE)


def test_an_edit_needs_an_instruction_or_a_prompt(comfy, executor, workflow, bundled_pipeline):
    run = executor.run(changed(workflow, {"5.instruction": ""}))
    assert run.error == 'there is no instruction; say what to change, such as "make the red box blue"'
    prompt = "a large blue box on a beige plain background, moving right"
    assert executor.run(changed(workflow, {"5.instruction": "", "5.prompt": prompt})).error == ""
    frames = bundled_pipeline(SOURCE, "", prompt=prompt).frames
    assert np.array_equal(saved(executor), frames)


def test_the_page_shows_the_workflow_that_the_server_takes(comfy, executor):
    (comfy.root / "input/red_box.mp4").touch()
    page = json.loads(EXAMPLE.read_text())
    links = {number: [str(source), slot] for number, source, slot, *_ in page["links"]}
    assert page["last_link_id"] == max(links) and page["last_node_id"] == max(node["id"] for node in page["nodes"])
    found = {}
    for node in page["nodes"]:
        types = executor.nodes[node["type"]].INPUT_TYPES()
        values, inputs = iter(node["widgets_values"]), {}
        for name, (kind, *options) in (types["required"] | types.get("optional", {})).items():
            if isinstance(kind, list) or kind in ("INT", "FLOAT", "STRING"):
                inputs[name] = next(values)
                if options[0].get("control_after_generate"):
                    assert next(values) == "fixed"
        linked = {each["name"]: links[each["link"]] for each in node["inputs"] if each["link"] is not None}
        sockets = [each["name"] for each in node["inputs"]]
        assert sockets == [name for name in types["required"] | types.get("optional", {}) if name not in inputs]
        found[str(node["id"])] = {"class_type": node["type"], "inputs": inputs | linked}
        gives = executor.nodes[node["type"]].RETURN_TYPES
        assert [each["type"] for each in node["outputs"]] == list(gives)
        for slot, each in enumerate(node["outputs"]):
            assert all(links[number] == [str(node["id"]), slot] for number in each["links"])
    assert found == {key: {name: node[name] for name in ("class_type", "inputs")} for key, node in API.items()}
    for number, source, slot, target, place, kind in page["links"]:
        (node,) = [node for node in page["nodes"] if node["id"] == target]
        assert node["inputs"][place]["link"] == number and node["inputs"][place]["type"] == kind
        assert executor.nodes[API[str(source)]["class_type"]].RETURN_TYPES[slot] == kind
