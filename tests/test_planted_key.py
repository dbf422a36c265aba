"""A key of an endpoint, planted in the environment of the real commands, is in no file of theirs and on no stream.

The endpoint repeats it in errors, answers and refusals, as it is, percent-encoded and in base64.
"""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pyarrow.parquet as pq
import pytest

from data_recipes.stages import shards_of
from imvideoedit.clients.secret import Hidden
from imvideoedit.clients.settings import EndpointSettings
from imvideoedit.common.errors import UserError
from tests.echoing_server import KEY, forms, running
from tests.edited_clips import write_edits
from tests.processes import command_environment, run
from tests.test_edit import assert_one_line

EVALUATE = ("+suite=paper", "repeats=1", "~suite.scorers.vbench", "+suite.scorers.judge.backoff=0.001")
BUILD = ("+recipe=pairs_13k", "~painter", "+painter={_target_:tests.painter.Painter}", "plan.scenes_per_shard=2")
BUILD += (
    "plan.max_area=4096",
    "filter.pixels.least_side=32",
    "llm.tries=5",
    "+llm.backoff=0.001",
    "pairs=1",
    "expected_yield=0.1",
    "~filter.pixels.bounds",
    "+filter.pixels.bounds={default:{ssim:[0,1],changed:[0,1],hash:[0,1]}}",
)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running() as address:
        yield address


def environment(folder: Path) -> dict[str, str]:
    """Of a user with that key, whose caches, home and temporary files are all in the folder."""
    outer = {name: value for name, value in command_environment().items() if "KEY" not in name}
    for name in ("home", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    own = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "XDG_CACHE_HOME": str(folder / "home")}
    return outer | own | {"OPENAI_API_KEY": KEY, "NO_PROXY": "127.0.0.1", "IMVIDEOEDIT_CACHE": str(folder / "cache")}


def assert_nowhere(folder: Path, done) -> None:
    """No form of the key in any file, name of a file, or stream."""
    texts = {"stdout": done.stdout, "stderr": done.stderr}
    for path in folder.rglob("*"):
        texts[f"name of {path.name}"] = path.name
        if path.is_file():
            texts[str(path)] = path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":  # which is compressed
            texts[f"rows of {path}"] = repr(pq.read_table(path).to_pylist())
    assert len(texts) > 5
    for where, text in texts.items():
        assert not (found := planted(text)), f"{where} holds {found}"


def planted(text: str) -> str | None:
    """A form of the key in a text; told apart from the rest of it by the key's longest runs of letters and digits."""
    runs = {"0123456789abcdefXYZ", "sk-planted"}
    encoded = forms(KEY)[4:-1]
    cores = {form.rstrip("=")[8:-8] for form in encoded}
    opened = unquote(text)
    return next((each for each in runs | cores if each.lower() in text.lower() or each in opened), None)


def test_the_search_finds_every_form():
    for form in forms(KEY):
        assert planted(f"some {form} text"), form
        shown = Hidden(KEY)(f"some {form} text")
        assert not planted(shown) and shown.startswith("some ") and shown.endswith(" text"), form
    assert Hidden("short")("a short one") == "a short one"


def test_a_recipe_keeps_no_key(server, tmp_path):
    out = tmp_path / "run"
    done = run("data_recipes.build", *BUILD, f"out={out}", f"llm.url={server}/answers/v1", env=environment(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = list(shards_of(out, "filter").rows())
    assert any(row["comment"] and "***" in row["comment"] for row in rows), "nothing was repeated"
    assert (out / "answers" / "answers.sqlite").is_file() and (out / "export" / "README.md").is_file()
    assert_nowhere(tmp_path, done)


@pytest.mark.parametrize("status", [401, 400, 500])
def test_a_recipe_that_fails_keeps_no_key(server, tmp_path, status):
    order = (*BUILD, f"out={tmp_path / 'run'}", f"llm.url={server}/{status}/v1", "stage=prompts")
    done = run("data_recipes.build", *order, env=environment(tmp_path) | {"HYDRA_FULL_ERROR": "1"})
    assert (done.returncode == 2) == (status == 401)
    assert_nowhere(tmp_path, done)


@pytest.mark.parametrize("how", ["answers", "401", "400"])
def test_a_judge_keeps_no_key(server, tmp_path, how):
    edits = write_edits(tmp_path / "edits", count=2, methods=("ours",))
    address = {"IMVIDEOEDIT_ENDPOINT": f"{server}/{how}/v1", "IMVIDEOEDIT_MODEL": "tiny"}
    order = (*EVALUATE, f"edits={edits}", f"out={tmp_path / 'run'}")
    done = run("imvideoedit.evaluate", *order, env=environment(tmp_path) | address)
    assert done.returncode == (2 if how == "401" else 0), done.stderr
    assert (tmp_path / "run/.hydra/overrides.yaml").is_file()
    if how == "answers":
        assert "***" in (tmp_path / "run/result.json").read_text(), "nothing was repeated"
    assert_nowhere(tmp_path, done)


ADDRESS = f"https://me:{KEY.replace('/', '')}@127.0.0.1:1/v1"
QUERY = f"https://127.0.0.1:1/v1?api_key={KEY}"
SETTINGS = [f"suite.scorers.judge.url='{ADDRESS}'", f"suite.scorers.judge.url='{QUERY}'"]
SETTINGS += [f"+suite.scorers.judge.api_key='{KEY}'", f"+suite.scorers.judge.key_variable='{KEY}'"]


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_key_among_the_settings_is_refused_before_anything_is_written(tmp_path, setting):
    given = environment(tmp_path)
    done = run("imvideoedit.evaluate", *EVALUATE, "edits=nowhere", f"out={tmp_path / 'run'}", setting, env=given)
    assert_one_line(done, "environment variable")
    assert not (tmp_path / "run").exists() and not planted(done.stderr + done.stdout)


@pytest.mark.parametrize("url", [ADDRESS, QUERY, f"htp://me:{KEY}@host", f"{KEY}@host", f"https://host/v1#{KEY}"])
def test_an_address_with_a_key_is_refused_and_not_shown(url):
    with pytest.raises(UserError, match="address alone") as caught:
        EndpointSettings(url=url)
    assert not planted(str(caught.value))
    with pytest.raises(UserError, match="environment variable") as caught:
        EndpointSettings(key_variable=KEY)
    assert not planted(str(caught.value))
