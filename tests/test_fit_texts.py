"""The texts of a fit: given ones as they are, the others by the model behind the configured endpoint, or one line."""

import json
from pathlib import Path

import numpy as np
import pytest

from imvideoedit.common.errors import UserError
from imvideoedit.fitting.request import FitRequest
from imvideoedit.fitting.texts import Texts, check_texts, make_texts
from tests.misbehaving_server import running

FIRST = np.full((16, 24, 3), 90, np.uint8)
EDITED = {0: np.full((16, 24, 3), 30, np.uint8), 5: np.full((16, 24, 3), 200, np.uint8)}


@pytest.fixture(scope="module")
def server():
    with running() as server:
        yield server


@pytest.fixture(autouse=True)
def _no_endpoint(monkeypatch):
    monkeypatch.delenv("IMVIDEOEDIT_ENDPOINT", raising=False)


def request(**given: str) -> FitRequest:
    return FitRequest(Path("clip.mp4"), Path("out"), "box:1,1,2,2", {0: Path("0.png"), 5: Path("5.png")}, **given)


def configure(monkeypatch, server, tmp_path, name: str, *script: str) -> None:
    """Have the server answer what is asked of it by a script."""
    order = {"name": name, "script": script, "answer": {"description": "A  blue box on sand."}}
    monkeypatch.setattr("imvideoedit.fitting.texts.QUESTION", json.dumps(order))
    monkeypatch.setenv("IMVIDEOEDIT_ENDPOINT", server.url)
    monkeypatch.setenv("IMVIDEOEDIT_CACHE", str(tmp_path))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-0123456789")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_given_texts_are_taken_and_nobody_is_asked():
    found = make_texts(request(prompt="snow", source_prompt="sand"), FIRST, EDITED)
    assert found == Texts("sand", {0: "snow", 5: "snow"}) and found.edit == "snow"
    assert found.of(5, edited=True) == "snow" and found.of(5, edited=False) == "sand"
    assert make_texts(request(prompt="snow"), FIRST, EDITED).source == ""


def test_without_prompt_and_endpoint_it_is_one_line():
    with pytest.raises(UserError, match="--prompt .* IMVIDEOEDIT_ENDPOINT"):
        check_texts(request())


def test_the_endpoint_describes_each_edited_frame_and_the_clip(monkeypatch, server, tmp_path):
    configure(monkeypatch, server, tmp_path, "described", "ok")
    found = make_texts(request(), FIRST, EDITED)
    assert found == Texts("A blue box on sand.", dict.fromkeys((0, 5), "A blue box on sand."))
    assert [len(each["images"]) for each in server.seen("described")] == [1, 1, 1]
    assert make_texts(request(prompt="snow"), FIRST, EDITED).edited == {0: "snow", 5: "snow"}


def test_a_model_that_refuses_is_one_line(monkeypatch, server, tmp_path):
    configure(monkeypatch, server, tmp_path, "refused", "refuses")
    with pytest.raises(UserError, match="describes no frame .*give --prompt"):
        make_texts(request(), FIRST, EDITED)
