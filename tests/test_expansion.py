"""From an instruction to a full prompt: each way where it works, and the text as typed, with a note, where not."""

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from imvideoedit.clients.prompts import MAX_WORDS, PromptPair
from imvideoedit.clients.settings import EndpointSettings
from imvideoedit.common.errors import UserError
from imvideoedit.editing.prompts import FRAME_SIDE, Expansion, expand, sample_frames
from tests.misbehaving_server import running, unused

CHECKOUT = Path(__file__).parents[1]
FRAMES = [np.full((16, 24, 3), level, dtype=np.uint8) for level in (0, 90, 180)]
ANSWER = {"source_prompt": "A red box on sand.", "prompt": "A blue box  on sand."}
IMAGE, END = "<image>", "</s>"


@pytest.fixture(scope="module")
def server():
    with running() as server:
        yield server


@pytest.fixture
def settings(server, tmp_path, monkeypatch) -> EndpointSettings:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-0123456789")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return EndpointSettings(url=server.url, model="tiny", cache=tmp_path / "cache", tries=2, backoff=0.001)


def order(name: str, *script: str, answer: object = ANSWER) -> str:
    """An instruction that tells the server what to do."""
    return json.dumps({"name": name, "script": script, "answer": answer})


def assert_as_typed(expansion: Expansion, instruction: str, *words: str) -> None:
    assert (expansion.prompt, expansion.how) == (instruction, "none")
    assert expansion.note and len(expansion.note.splitlines()) == 1
    assert all(word in expansion.note for word in words), expansion.note


def test_as_typed_and_by_grammar():
    assert expand("make it snow") == Expansion(None, "make it snow", "none")
    scene = "natural style, a red box at the left"
    edited = Expansion(scene, "natural style, a blue box at the left", "grammar")
    assert expand("make the red box blue", how="grammar", source_prompt=scene) == edited
    assert_as_typed(expand("make it snow", how="grammar"), "make it snow", "grammar")


def test_an_endpoint_sees_the_frames_and_is_asked_once(server, settings):
    instruction = order("sees", "429 until 2100", "chatty")
    assert_as_typed(expand(instruction, FRAMES, "endpoint", settings=settings), instruction, "429")
    expansion = Expansion("A red box on sand.", "A blue box on sand.", "endpoint")
    for _ in range(2):
        assert expand(instruction, FRAMES, "endpoint", settings=settings) == expansion
    assert [request["images"] for request in server.seen("sees")] == [["jpeg"] * 3] * 2
    told = expand(order("told", "ok"), FRAMES, "endpoint", "my own words", settings)
    assert told == Expansion("my own words", "A blue box on sand.", "endpoint")
    large = [np.zeros((2 * FRAME_SIDE, 3 * FRAME_SIDE, 3), dtype=np.uint8)]
    assert expand(order("large", "ok"), large, "endpoint", settings=settings).how == "endpoint"


@pytest.mark.parametrize(
    ("action", "word"),
    [
        ("401", "key"),
        ("404", "tiny"),
        ("refuses", "cannot help"),
        ("wrong", "prompt"),
        ("500", "500"),
        ("torn", "broke"),
    ],
)
def test_an_endpoint_that_fails_costs_no_edit(settings, action, word):
    instruction = order(f"fails {action}", action)
    assert_as_typed(expand(instruction, FRAMES, "endpoint", settings=settings), instruction, word)


def test_without_key_network_disk_or_packages_the_edit_still_happens(settings, monkeypatch, tmp_path):
    away = EndpointSettings(url=unused(), cache=tmp_path, tries=2, backoff=0.0)
    assert_as_typed(expand("snow", FRAMES, "endpoint", settings=away), "snow", "cannot reach", away.url)
    (tmp_path / "file").touch()
    full = EndpointSettings(url=settings.url, cache=tmp_path / "file")
    assert_as_typed(expand("snow", FRAMES, "endpoint", settings=full), "snow", "IMVIDEOEDIT_CACHE")
    monkeypatch.delenv("OPENAI_API_KEY")
    assert_as_typed(expand("snow", FRAMES, "endpoint", settings=settings), "snow", "OPENAI_API_KEY")
    for package in ("openai", "pydantic"):
        code = (
            f"import sys; sys.modules[{package!r}] = None; import numpy\n"
            "from imvideoedit.editing.prompts import expand\n"
            "print(expand('snow', [numpy.zeros((8, 8, 3), numpy.uint8)], 'endpoint').note)"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, text=True, capture_output=True)
        assert package in done.stdout and "imvideoedit[models]" in done.stdout, done.stderr


def test_mistakes_of_the_user_are_said_at_once(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="endpoint, local"):
        expand("snow", FRAMES, "magic")
    for model in (None, str(tmp_path / "none"), "no_such_folder"):
        with pytest.raises(UserError, match="hub id"):
            expand("snow", FRAMES, "local", local_model=model)
    monkeypatch.setenv("IMVIDEOEDIT_MAX_COST", "a lot")
    with pytest.raises(UserError, match="IMVIDEOEDIT_MAX_COST"):
        expand("snow", FRAMES, "endpoint")
    for frames in ([], [np.zeros((8, 8, 3))], [np.zeros((8, 8), dtype=np.uint8)]):
        with pytest.raises(ValueError, match="frames"):
            expand("snow", frames, "endpoint")


def test_what_is_no_pair_of_prompts():
    for after in ("", "  ", "A red box on SAND.", "word " * (MAX_WORDS + 1)):
        with pytest.raises(ValidationError):
            PromptPair(source_prompt="A red box on sand.", prompt=after)


def local_model(folder: Path, says: str | None = None) -> str:
    """A LLaVA of random weights that babbles, or says the one thing over and over."""
    words = {says or "word": 0, "<pad>": 1, END: 2, "<unk>": 3, IMAGE: 4, "snow": 5}
    tokens = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokens.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="<pad>", eos_token=END, unk_token="<unk>", additional_special_tokens=[IMAGE]
    )
    template = (
        "{% for message in messages %}{% for part in message['content'] %}"
        "{{ '<image> ' if part['type'] == 'image' else part['text'] + ' ' }}{% endfor %}{% endfor %}"
    )
    pixels = CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
    LlavaProcessor(
        pixels,
        tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    small = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    vision = CLIPVisionConfig(**small, num_hidden_layers=2, image_size=8, patch_size=4)
    text = LlamaConfig(**small, num_hidden_layers=1, vocab_size=len(words), pad_token_id=1, eos_token_id=2)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=4, vision_feature_layer=-1)
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    if says:
        model.model.language_model.norm.weight.data.zero_()  # every logit is 0, and the first token the most likely
    model.save_pretrained(folder)
    return str(folder)


@pytest.mark.slow
def test_a_local_model_is_asked_once_and_its_babble_is_not_used(settings, tmp_path):
    babbles = local_model(tmp_path / "babbles")
    assert_as_typed(expand("snow", FRAMES, "local", None, settings, babbles, "cpu"), "snow", "no complete JSON object")
    speaks = local_model(tmp_path / "speaks", says=json.dumps(ANSWER))
    expansion = Expansion("A red box on sand.", "A blue box on sand.", "local")
    assert expand("snow", FRAMES, "local", None, settings, speaks, "cpu") == expansion
    with contextlib.closing(sqlite3.connect(settings.cache / "answers.sqlite")) as cache, cache:
        changed = "SELECT key, replace(answer, 'blue', 'green'), refusal FROM checked"
        assert cache.execute(f"INSERT INTO answers {changed}").rowcount == 1
        cache.execute("DELETE FROM checked")
    assert "green" in expand("snow", FRAMES, "local", None, settings, speaks, "cpu").prompt, "asked again"
    local_model(tmp_path / "speaks", says=json.dumps(ANSWER))
    assert expand("snow", FRAMES, "local", None, settings, speaks, "cpu") == expansion, "taken for the model before"


def test_a_local_model_runs_no_code_and_reads_no_pickles(settings, tmp_path):
    folder = Path(local_model(tmp_path / "model", says=json.dumps(ANSWER)))
    coded = shutil.copytree(folder, tmp_path / "coded")
    config = json.loads((coded / "config.json").read_text()) | {"model_type": "custom"}
    config["auto_map"] = {"AutoConfig": "code.Config", "AutoModelForImageTextToText": "code.Model"}
    (coded / "config.json").write_text(json.dumps(config))
    (coded / "code.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    for model in (coded, folder, tmp_path):
        assert_as_typed(expand("snow", FRAMES, "local", None, settings, str(model), "cpu"), "snow")
    assert not (tmp_path / "was_run").exists()


@given(st.integers(0, 60), st.integers(1, 12), st.integers(-5, 5))
def test_sampled_frames_are_spread_evenly(length, count, extra):
    """Whether or not the video has as many frames as it is said to have."""
    there = max(length + extra, 0)
    picked = [int(frame[0]) for frame in sample_frames((np.full(1, i) for i in range(there)), length, count)]
    assert picked == sorted(set(picked)) and all(index < min(length, there) for index in picked)
    if there >= length:
        assert len(picked) == min(count, length)
        steps = np.diff(picked)
        assert len(steps) == 0 or (steps.max() - steps.min() <= 1 and (picked[0], picked[-1]) == (0, length - 1))


def test_sampling_reads_no_more_than_it_needs():
    frames = iter(np.arange(100))
    assert [int(frame) for frame in sample_frames(frames, 9, 3)] == [0, 4, 8]
    assert next(frames) == 9
    with pytest.raises(ValueError, match="count"):
        sample_frames(frames, 9, 0)
