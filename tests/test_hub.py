"""Adapters on the Hub: pushed, pulled and at work, through a server of its API on this machine."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import yaml
from huggingface_hub import constants
from PIL import Image

from imvideoedit.common.bundled import ADAPTER
from imvideoedit.common.errors import Note, UserError
from imvideoedit.editing.edit_file import read_facts
from imvideoedit.editing.model_card import MARKER
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.methods.adapter_file import adapter_hash
from imvideoedit.methods.adapter_header import read_header
from imvideoedit.methods.adapter_hub import find_adapter, is_adapter, origin
from imvideoedit.video.reader import read_video, write_video
from tests.hub_server import TOKEN, Repository, serving
from tests.processes import CHECKOUT, PATIENCE, command_environment

NAME, INSTRUCTION = "ann/noir-edits", "turn it into noir style"
SCORES = {
    "lengths": {
        "17": {"overall": 62.84, "interval": [60.1, 65.2], "videos": 50},
        "49": {"overall": 58.3, "videos": 50},
    },
    "copy": {"lengths": {"17": {"overall": 22.0}, "49": {"overall": 21.5}}},
    "ceiling": {"lengths": {"17": {"overall": 86.2}, "49": {"overall": 86.0}}},
}
SHOWN = ("scores/sheet.png", "scores/strips/relighting.png", "previews/step-000900.png")
RESOLVED = "{repo_id}/resolve/{revision}/{filename}"
PUSH = """
import sys, logging
logging.basicConfig(level=logging.DEBUG)
from imvideoedit import EditPipeline
pipeline = EditPipeline.from_pretrained(sys.argv[1], device="cpu")
print(pipeline.push_to_hub(sys.argv[2], license="apache-2.0"))
"""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A run of training, scored, with files that are nobody's business."""
    folder = tmp_path_factory.mktemp("runs") / "noir"
    (folder / "scores/strips").mkdir(parents=True)
    (folder / "previews").mkdir()
    (folder / "mask").mkdir()
    (folder / "adapter.safetensors").write_bytes(ADAPTER.read_bytes())
    (folder / "scores/result.json").write_text(json.dumps(SCORES))
    for name in (*SHOWN, "previews/step-000100.png", "mask/0.png"):
        Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(folder / name)
    for name in ("begun.json", "state.ckpt", "scores/videos.parquet", ".env"):
        (folder / name).write_text("private")
    return folder


@pytest.fixture(scope="module")
def hub():
    with serving() as running:
        yield running


def environment(hub, home: Path, **values: str) -> dict[str, str]:
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    return command_environment() | own | values


@pytest.fixture(scope="module")
def pushed(hub, run_folder, tmp_path_factory):
    """What a process that pushes says, on stdout and stderr."""
    command = [sys.executable, "-c", PUSH, str(run_folder), NAME]
    home = tmp_path_factory.mktemp("pushing")
    options = {"capture_output": True, "text": True, "timeout": PATIENCE, "cwd": home}
    done = subprocess.run(command, env=environment(hub, home, HF_TOKEN=TOKEN), **options)
    assert done.returncode == 0, done.stderr
    kept = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert TOKEN not in done.stdout + done.stderr and TOKEN.encode() not in kept
    return done.stdout.strip()


@pytest.fixture
def client(hub, tmp_path, monkeypatch):
    """This process's own client, with a cache of its own; lets one turn the network off."""
    values = {"ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": False}
    values |= {"HF_HUB_DISABLE_XET": True, "HUGGINGFACE_CO_URL_TEMPLATE": f"{hub.url}/{RESOLVED}"}
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    huggingface_hub.close_session()  # a session keeps what the constants were
    yield lambda offline: (monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline), huggingface_hub.close_session())
    huggingface_hub.close_session()


def newest(hub, name: str = NAME) -> tuple[str, dict[str, bytes]]:
    found = hub.repositories[name].files("main")
    assert found is not None
    return found


def make_repository(hub, name, files, private=False):
    hub.repositories[name] = Repository(private)
    return hub.repositories[name].commit(files)


@pytest.fixture
def published(hub) -> str:
    """The name of an adapter that is there without being pushed; it is the bundled one again for each test."""
    make_repository(hub, "ann/published", {"adapter.safetensors": ADAPTER.read_bytes()})
    return "ann/published"


class Trap:
    """A pickle that leaves a file where it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.slow
def test_a_pushed_adapter_comes_with_its_card_scores_and_pictures_alone(hub, pushed):
    commit, files = newest(hub)
    assert pushed == f"{NAME}@{commit}"
    assert set(files) == {".gitattributes", "README.md", "adapter.safetensors", "scores/result.json", *SHOWN}
    assert files["adapter.safetensors"] == ADAPTER.read_bytes()
    assert files["adapter.safetensors"] in hub.large.values(), "by the protocol for large files"
    assert not hub.repositories[NAME].private
    _, front, body = files["README.md"].decode().split("---\n", 2)
    told = yaml.safe_load(front)
    assert told["library_name"] == "imvideoedit" and told["license"] == "apache-2.0" and "base_model" not in told
    results = [result for entry in told["model-index"] for result in entry["results"]]
    assert [result["metrics"][0]["value"] for result in results] == [62.8, 58.3]
    header = read_header(ADAPTER)
    expected = [f"from_pretrained({json.dumps(NAME)})", f"--adapter {NAME}", header.backbone["parameter_hash"]]
    expected += ["| method | `aligned_update` |", "| steps | `900` |", "| base model | nano |", "steps `4`"]
    expected += ["| 17 | 50 | **62.8** (60.1 to 65.2) | 22.0 | 86.2 |", "| 49 | 50 | **58.3** | 21.5 | 86.0 |"]
    assert [words for words in [*expected, *(f"![{name}]({name})" for name in SHOWN)] if words not in body] == []


@pytest.mark.slow
def test_a_pulled_adapter_edits_and_a_pickle_beside_it_is_never_opened(hub, pushed, bundled_pipeline, tmp_path):
    _, files = newest(hub)
    trap = pickle.dumps(Trap(tmp_path / "opened"))
    beside = dict.fromkeys(("adapter.pkl", "pytorch_model.bin", "adapter.ckpt", "mask.png.pkl"), trap)
    beside |= {"modeling.py": b"raise SystemExit(9)", "sitecustomize.py": b"raise SystemExit(9)"}
    commit = hub.repositories[NAME].commit(files | beside)
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "in.mkv", frames, 12, codec="lossless")
    source = read_video(tmp_path / "in.mkv")[0]
    expected = bundled_pipeline(source, INSTRUCTION, steps=1).frames
    command = [sys.executable, "-m", "imvideoedit.edit", "in.mkv", INSTRUCTION, "--steps", "1", "--codec", "lossless"]
    options = {"capture_output": True, "text": True, "timeout": PATIENCE, "cwd": tmp_path}
    began = len(hub.requests)

    def edited(output: str, adapter: str, **values: str) -> tuple[np.ndarray, dict, str]:
        asked = [*command, "--output", output, "--adapter", adapter]
        done = subprocess.run(asked, env=environment(hub, tmp_path / "home", **values), **options)
        assert done.returncode == 0, done.stderr
        facts = read_facts(tmp_path / output)
        assert facts is not None and TOKEN not in done.stderr + json.dumps(facts)
        return read_video(tmp_path / output)[0], facts, done.stderr

    result, facts, said = edited("online.mkv", NAME)
    assert np.array_equal(result, expected) and not np.array_equal(result, source)
    assert facts["hub"] == [f"{NAME}@{commit}"] and f"note: the adapter is {NAME}@{commit}\n" in said
    assert hub.downloads(began) == ["adapter.safetensors"]
    in_cache = [path for path in (tmp_path / "home").rglob("*") if path.is_file() and path.read_bytes() == trap]
    assert in_cache == [] and not (tmp_path / "opened").exists()
    assert any(path.startswith(f"/{NAME}/resolve/{commit}/") for _, path, _ in hub.requests[began:]), "by its commit"

    asked = len(hub.requests)
    result, facts, _ = edited("offline.mkv", NAME, HF_HUB_OFFLINE="1")
    assert np.array_equal(result, expected) and facts["hub"] == [f"{NAME}@{commit}"]
    assert len(hub.requests) == asked
    pickle.loads(trap)
    assert (tmp_path / "opened").exists(), "the trap would have been noticed"


def test_a_revision_stays_and_the_main_branch_goes_on(hub, published, client):
    first, files = newest(hub, published)
    other = (CHECKOUT / "tests/adapters_format_1/aligned_update.safetensors").read_bytes()
    second = hub.repositories[published].commit(files | {"adapter.safetensors": other})
    hub.repositories[published].references["v1"] = first
    with pytest.warns(Note, match=f"the adapter is {published}@{second}"):
        assert find_adapter(published).read_bytes() == other
    for name in (f"{published}@{first}", f"{published}@v1"):
        with pytest.warns(Note):
            file = find_adapter(name)
        assert file.read_bytes() == ADAPTER.read_bytes() and origin(file) == f"{published}@{first}"
    client(True)
    with pytest.warns(Note):
        assert find_adapter(f"{published}@v1").read_bytes() == ADAPTER.read_bytes()
    with pytest.raises(UserError, match="cannot load the adapter ann/none"):
        find_adapter("ann/none")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ann/missing", "cannot load the adapter ann/missing .*check the name"),
        ("ann/published@v9", "cannot load the adapter ann/published .*v9"),
        ("ann/backbone", "ann/backbone on the Hub holds no adapter.safetensors"),
        ("ann/secret", "cannot load the adapter ann/secret"),
    ],
)
def test_what_cannot_be_pulled_is_one_line(hub, published, client, monkeypatch, name, words):
    make_repository(hub, "ann/backbone", {"model_index.json": b"{}"})
    make_repository(hub, "ann/secret", {"adapter.safetensors": ADAPTER.read_bytes()}, private=True)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match=words) as error:
        find_adapter(name)
    assert "\n" not in str(error.value)


def test_a_private_adapter_is_pulled_by_the_token_of_the_environment(hub, client):
    commit = make_repository(hub, "ann/secret", {"adapter.safetensors": ADAPTER.read_bytes()}, private=True)
    with pytest.warns(Note, match=commit):
        assert adapter_hash(find_adapter("ann/secret")) == adapter_hash(ADAPTER)


def test_a_pickle_in_an_adapters_name_is_refused_unopened(hub, client, tmp_path):
    make_repository(hub, "ann/trap", {"adapter.safetensors": pickle.dumps(Trap(tmp_path / "opened"))})
    with pytest.warns(Note), pytest.raises(UserError, match="not a complete safetensors file"):
        EditPipeline.from_pretrained("ann/trap", device="cpu")
    assert not (tmp_path / "opened").exists()


def test_a_path_is_no_name_on_the_hub(hub, client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ann").mkdir()
    asked = len(hub.requests)
    paths = ("ann/noir-edits", "ann/noir.safetensors", "bob/noir.safetensors", "noir", "/ann/noir", "../a/b", "./a/b")
    for path in paths:
        assert find_adapter(path) == Path(path)
    assert find_adapter(Path("bob/noir-edits")) == Path("bob/noir-edits")
    (tmp_path / "ann/folder").mkdir()
    with pytest.raises(UserError, match="the folder ann/folder holds no adapter.safetensors"):
        find_adapter("ann/folder")
    (tmp_path / "ann/folder/adapter.safetensors").write_bytes(ADAPTER.read_bytes())
    assert find_adapter("ann/folder") == Path("ann/folder/adapter.safetensors")
    assert find_adapter("bundled") == ADAPTER and len(hub.requests) == asked


def test_what_is_given_in_a_backbones_place_is_told_apart(hub, published, client, tmp_path, wan_folder):
    make_repository(hub, "ann/backbone", {"model_index.json": b"{}"})
    with pytest.warns(Note):
        assert is_adapter(published)
    assert is_adapter(ADAPTER) and is_adapter(str(ADAPTER))
    for backbone in ("nano", "wan_1_3b", None, str(wan_folder), "ann/backbone", str(tmp_path / "none.safetensors")):
        assert not is_adapter(backbone)


def test_pushing_again_keeps_a_card_that_somebody_wrote(hub, client, bundled_pipeline):
    make_repository(hub, "ann/again", {})
    bundled_pipeline.push_to_hub("ann/again", private=True)
    _, files = newest(hub, "ann/again")
    assert MARKER in files["README.md"].decode() and set(files) == {"README.md", "adapter.safetensors"}
    hub.repositories["ann/again"].commit(files | {"README.md": b"My own words."})
    bundled_pipeline.push_to_hub("ann/again")
    assert newest(hub, "ann/again")[1]["README.md"] == b"My own words."
    bundled_pipeline.push_to_hub("ann/new", private=True)
    assert hub.repositories["ann/new"].private


def test_a_refused_push_is_one_line_without_the_token(hub, client, bundled_pipeline):
    with pytest.raises(UserError, match="give user/name"):
        bundled_pipeline.push_to_hub("adapter")
    with pytest.raises(UserError, match="cannot push to echo/adapter .*HF_TOKEN") as error:
        bundled_pipeline.push_to_hub("echo/adapter")  # whose answer repeats the token
    assert "***" in str(error.value) and TOKEN not in str(error.value) and "\n" not in str(error.value)


def test_a_saved_folder_is_loaded_as_it_was(bundled_pipeline, tmp_path):
    folder = bundled_pipeline.save_pretrained(tmp_path / "noir")
    assert (folder / "adapter.safetensors").read_bytes() == ADAPTER.read_bytes()
    loaded = EditPipeline.from_pretrained(str(folder), device="cpu")
    assert loaded.adapters == {folder / "adapter.safetensors": 1.0} and loaded.config == bundled_pipeline.config
    loaded.config = replace(loaded.config, steps=7)
    again = loaded.save_pretrained(tmp_path / "seven")
    header = read_header(again / "adapter.safetensors")
    assert header.training["sampler"]["steps"] == 7 and header.training["steps"] == 900
    assert adapter_hash(again / "adapter.safetensors") == adapter_hash(ADAPTER)
    (again / "README.md").write_text("My own words.")
    loaded.save_pretrained(again)
    assert (again / "README.md").read_text() == "My own words."
    assert loaded.save_pretrained(folder) == folder, "onto the files it was loaded from"
    assert "steps `7`" in (folder / "README.md").read_text()


def test_a_method_made_here_is_saved_with_its_settings(bundled_pipeline, tmp_path):
    made = EditPipeline(bundled_pipeline.backbone, bundled_pipeline.method, replace(bundled_pipeline.config, steps=3))
    header = read_header(made.save_pretrained(tmp_path / "made") / "adapter.safetensors")
    assert header.method == "aligned_update" and header.training["sampler"]["steps"] == 3
    assert header.backbone["parameter_hash"] == read_header(ADAPTER).backbone["parameter_hash"]


def test_what_a_file_does_not_hold_is_not_saved_without_it(bundled_pipeline, tmp_path):
    pipeline = EditPipeline(bundled_pipeline.backbone, bundled_pipeline.method)
    for adapters, loras, words in (
        ({ADAPTER: 0.5}, {}, "one with a weight"),
        ({ADAPTER: 1.0, Path("other"): 1.0}, {}, "several adapters"),
        ({ADAPTER: 1.0}, {Path("fast.safetensors"): 1.0}, "does not hold fast.safetensors"),
    ):
        pipeline.came_from(adapters, loras)
        with pytest.raises(UserError, match=words):
            pipeline.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()
