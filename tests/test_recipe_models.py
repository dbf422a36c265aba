"""A whole recipe against a real chat endpoint in its own process that fails in every way it can."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_recipes.local_vision import LocalVision
from data_recipes.questions import SceneCheck
from data_recipes.stages import shards_of
from imvideoedit.common.errors import UserError
from imvideoedit.data.records import open_records
from tests.misbehaving_server import unused
from tests.policy_server import TOKENS
from tests.processes import command_environment, run
from tests.test_edit import assert_one_line

KEY = "sk-very-secret-0123456789"
PRICES = (2.0, 10.0)
SERVER = Path(__file__).with_name("policy_server.py")
OVERRIDES = {
    "plan.scenes_per_shard": 5,
    "plan.max_area": 4096,
    "filter.pixels.least_side": 32,
    "filter.crossed_share": 0.5,
    "crossed_model": "second",
    "llm.input_price": PRICES[0],
    "llm.output_price": PRICES[1],
    "llm.tries": 3,
    "+llm.backoff": 0.001,
    "llm.image_tokens": 500,
}


@pytest.fixture
def server(tmp_path) -> Iterator[tuple[str, Path]]:
    """The endpoint's address and the file of its requests."""
    log = tmp_path / "requests.jsonl"
    log.touch()
    with subprocess.Popen([sys.executable, str(SERVER), str(log)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1", log
        finally:
            process.terminate()


def build(out: Path, url: str, *overrides: str, key: str | None = KEY, **settings: Any) -> subprocess.CompletedProcess:
    given = OVERRIDES | {"out": out, "llm.url": url} | settings
    painter = ["~painter", "+painter={_target_:tests.painter.Painter}"]
    environment = command_environment() | {"NO_PROXY": "127.0.0.1"}
    environment.pop("OPENAI_API_KEY", None)
    if key:
        environment["OPENAI_API_KEY"] = key
    settings = [f"{name}={value}" for name, value in given.items()]
    order = ("+recipe=[pairs_13k,crossed]", *painter, *overrides, *settings)
    return run("data_recipes.build", *order, env=environment)


def requests(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def answered_once(log: Path) -> None:
    """No question was sent again once it was answered or refused."""
    final = Counter(line["key"] for line in requests(log) if line["action"] in ("answers", "refuses", "slow"))
    assert set(final.values()) == {1}
    last = {line["key"]: line["action"] for line in requests(log)}
    for key in final:
        assert last[key] in ("answers", "refuses", "slow"), "asked again after its answer"


def spent(log: Path) -> float:
    """What the endpoint charges: for each request that it did not turn away."""
    charged = sum(line["action"] not in ("429", "500") for line in requests(log))
    return charged * (TOKENS[0] * PRICES[0] + TOKENS[1] * PRICES[1]) / 1e6


@pytest.mark.slow
def test_every_row_ends_accepted_or_rejected_with_a_reason_and_nothing_is_asked_twice(server, tmp_path):
    url, log = server
    out = tmp_path / "pairs"
    done = build(out, url, pairs=30)
    assert done.returncode == 0, done.stderr
    assert "about" in done.stdout and "questions to gemini-3.1-pro" in done.stdout
    actions = Counter(line["action"] for line in requests(log))
    assert set(actions) == {"answers", "refuses", "429", "500", "truncated", "wrong", "slow"}
    assert {line["schema"] for line in requests(log)} == {"SceneCheck", "PairTexts", "Verdict"}
    answered_once(log)

    prompts = list(shards_of(out, "prompts").rows())
    pairs = {row["prompt_id"]: row for row in shards_of(out, "synthesize").rows()}
    verdicts = {row["id"]: row for row in shards_of(out, "filter").rows()}
    fates = Counter()
    for row in prompts:
        stages = [row]
        if row["accepted"]:
            stages.append(pairs[row["id"]])
            if stages[-1]["accepted"]:
                stages.append(verdicts[pairs[row["id"]]["id"]])
        assert all(each["accepted"] == (not each["reason"]) for each in stages)
        fates[stages[-1]["reason"].split(":")[0] or "accepted"] += 1
    assert len({row["id"] for row in prompts}) == len(prompts)
    expected = ["accepted", "scene not physical", "writer refused", "judge below 6", "painter", "identical images"]
    assert set(expected) <= set(fates), fates
    assert any("gave no answer" in fate for fate in fates)

    exported = open_records(out / "export")
    judged = {name: json.loads(row["scores"]) for name, row in verdicts.items()}
    for record in (exported[i] for i in range(len(exported))):
        assert record.scores == judged[record.id] and min(record.scores.values()) >= 6
        record.load()
    texts = [path for path in out.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert not texts and KEY not in done.stdout + done.stderr

    # Again, and with the strict threshold: nothing is asked anew.
    before = len(requests(log))
    assert build(out, url, pairs=30).returncode == 0
    assert len(requests(log)) == before
    said = run("data_recipes.agreement", out, forked=False)
    assert said.returncode == 0 and "| second |" in said.stdout, said.stderr


@pytest.mark.slow
def test_a_budget_is_never_passed_and_more_of_it_goes_on(server, tmp_path):
    url, log = server
    out = tmp_path / "pairs"
    poor = build(out, url, pairs=10, **{"llm.max_cost": 0.06})
    assert_one_line(poor, "the budget is spent")
    assert 0 < spent(log) <= 0.06
    assert json.loads((out / "answers" / "spent.json").read_text())["spent"] <= 0.06
    rich = build(out, url, pairs=10, **{"llm.max_cost": 5})
    assert rich.returncode == 0, rich.stderr
    answered_once(log)


def test_a_local_model_that_is_not_there_is_one_line(tmp_path):
    model = LocalVision(str(tmp_path / "none"), str(tmp_path / "cache"))
    with pytest.raises(UserError, match="none cannot be used"):
        model.ask(["Scene: a cat"], SceneCheck)
    assert "on this machine" in model.estimate(5, 100, 0, 10) and model.parallel == 1


@pytest.mark.slow
def test_what_ends_a_run_is_one_line_that_names_it(server, tmp_path):
    url, _ = server
    out = tmp_path / "pairs"
    assert_one_line(build(out, url, pairs=3, key=None), "OPENAI_API_KEY")
    assert_one_line(build(out, unused(), pairs=3), "cannot reach the endpoint")
    assert_one_line(build(out, url, pairs=3, **{"llm.tires": 3, "llm.tries": 3}), "llm.tires")
    words = tmp_path / "words"
    words.mkdir()
    (words / "conditions.yaml").write_text("light:\n  - sun\n - moon\n")
    assert_one_line(build(out, url, pairs=3, **{"writer.vocabulary": words}), "conditions.yaml", "line 3")
    assert_one_line(build(out, url, pairs=3, stage="filter"), "stage=synthesize")
    assert_one_line(build(out, url, pairs=3, **{"filter.accept": 11}), "filter.accept")
