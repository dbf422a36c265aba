"""The example workflow, changed as a test needs, and a ComfyUI to run it in."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from imvideoedit.app.samples import SAMPLES
from imvideoedit.comfy.link import EXAMPLE
from imvideoedit.comfy.nodes import NODE_CLASS_MAPPINGS
from imvideoedit.video.reader import read_video, write_video
from imvideoedit.world.render import render
from tests.comfy_executor import Executor
from tests.comfy_host import Comfy, own_nodes

FRAMES = 6
API = json.loads(EXAMPLE.with_name("edit_video_api.json").read_text())
INSTRUCTION = API["5"]["inputs"]["instruction"]
SOURCE = render(SAMPLES[0].scene, FRAMES)


def new_executor(folder: Path, patch: pytest.MonkeyPatch) -> Executor:
    """A ComfyUI with nothing loaded, and with a clip of ``SOURCE`` among its inputs."""
    comfy = Comfy(folder)
    comfy.install(patch)
    write_video(comfy.root / "input/red_box.mkv", SOURCE, fps=8, codec="lossless")
    return Executor(comfy, own_nodes(comfy) | NODE_CLASS_MAPPINGS)


def saved(executor: Executor, name: str = "imvideoedit/edit_00001_.mkv") -> np.ndarray:
    """The frames of an output."""
    return read_video(executor.comfy.root / "output" / name)[0]


def example():
    """The example, without loss from file to file."""
    return changed(API, {"1.file": "red_box.mkv", "6.format": "mkv, lossless"})


def changed(workflow, values):
    """A copy with other inputs, by node and name; without those that are None."""
    copied = copy.deepcopy(workflow)
    for place, value in values.items():
        node, name = place.split(".")
        copied[node]["inputs"] = {key: old for key, old in copied[node]["inputs"].items() if key != name}
        if value is not None:
            copied[node]["inputs"][name] = value
    return copied


def with_tensors(workflow, folder: Path, **tensors):
    """A copy whose edit gets tensors as further inputs."""
    copied = copy.deepcopy(workflow)
    for number, (name, tensor) in enumerate(tensors.items(), start=20):
        torch.save(tensor, folder / f"{name}.pt")
        copied[str(number)] = {"class_type": "Tensors", "inputs": {"file": str(folder / f"{name}.pt")}}
        copied["5"]["inputs"][name] = [str(number), int(name == "mask")]
    return copied


def with_settings(workflow, **values):
    """A copy with a node of settings; those not given are as the page shows them at first."""
    copied = copy.deepcopy(workflow)
    types = NODE_CLASS_MAPPINGS["ImVideoEditSettings"].INPUT_TYPES()["required"]
    inputs = {name: options["default"] for name, (_, options) in types.items()} | values
    copied["9"] = {"class_type": "ImVideoEditSettings", "inputs": inputs}
    copied["5"]["inputs"]["settings"] = ["9", 0]
    return copied
