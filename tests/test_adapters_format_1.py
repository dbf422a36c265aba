"""Adapter files of the first format, written before the package had rooms, load and edit as they did.

``adapters_format_1/`` holds a random tiny backbone, two adapters trained in it (random, none at its start), a video,
and the frames that the program which wrote them made of it.
"""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from imvideoedit import EditPipeline
from imvideoedit.methods.adapter_file import adapter_hash

FOLDER = Path(__file__).parent / "adapters_format_1"
HASHES = {"predict_update": "260c53dc9ca69605", "aligned_update": "fe20f513b8656233"}


@pytest.mark.parametrize("method", HASHES)
def test_an_old_adapter_gives_the_frames_it_gave(method, monkeypatch):
    monkeypatch.chdir(FOLDER)  # its header names the backbone's folder as it was given then: wan
    assert adapter_hash(f"{method}.safetensors") == HASHES[method]
    known = load_file("frames.safetensors")
    edited = EditPipeline.from_pretrained(adapter=f"{method}.safetensors", device="cpu")(
        known["video"], "a red ball", seed=3
    ).frames
    # Processors round differently in the last bit; on the one that wrote them, all frames were the same bit for bit.
    assert np.abs(edited.astype(int) - known[method]).max() <= 1
    assert (edited != known[method]).mean() < 0.01
    assert np.abs(known[method].astype(int) - known["video"]).mean() > 10
