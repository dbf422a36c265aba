"""The client of chat endpoints, against a real server in its own process that misbehaves as told."""

import contextlib
import json
import logging
import os
import random
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import BaseModel

from imvideoedit.clients.answers import Refused, Unanswered
from imvideoedit.clients.endpoint import Endpoint
from imvideoedit.clients.settings import EndpointSettings
from imvideoedit.common.errors import UserError
from tests.misbehaving_server import running, unused
from tests.processes import PATIENCE

CHECKOUT = Path(__file__).parents[1]
KEY = "sk-very-secret-0123456789"
PICTURE = np.full((8, 12, 3), 200, dtype=np.uint8)
GOOD = {"score": 3, "why": 'both {braces} and "quotes" \u2026'}
QUICK = ["429", "500", "503", "hang up", "torn", "half", "page", "cut", "cut in silence", "wrong", "no choices"]
FINAL = {"refuses": Refused, "filtered": Refused, "400": Unanswered, "401": UserError, "404": UserError}
FINAL |= {"429 until 2100": Unanswered, "quota": UserError}


class Verdict(BaseModel):
    """A judgement."""

    score: int
    why: str


@pytest.fixture(scope="module")
def server():
    with running() as server:
        yield server


@pytest.fixture
def settings(server, tmp_path, monkeypatch):
    """Settings with a timeout that only questions about slow answers meet."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def make(action: str = "", **changes) -> EndpointSettings:
        defaults = {"url": server.url, "model": "tiny", "cache": tmp_path / "cache", "backoff": 0.001}
        return EndpointSettings(**(defaults | {"timeout": 0.5 if action == "slow" else 600} | changes))

    return make


def poll(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, however busy the machine is."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def order(name: str, *script: str, **more) -> list:
    """The parts of a question that tells the server what to do."""
    return [PICTURE, json.dumps({"name": name, "script": script, "answer": GOOD} | more)]


def endpoint(settings: EndpointSettings, naps: list[float] | None = None) -> Endpoint:
    """One that does not really wait."""
    return Endpoint(settings, sleep=(naps if naps is not None else []).append)


@pytest.mark.parametrize("action", QUICK)
def test_trouble_that_passes_is_outlasted_and_never_met_again(server, settings, action):
    naps: list[float] = []
    name = f"passing {action}"
    assert endpoint(settings(), naps).ask(order(name, action, action, "ok"), Verdict) == Verdict(**GOOD)
    assert len(server.seen(name)) == 3 and len(naps) == 2
    assert endpoint(settings()).ask(order(name, action, action, "ok"), Verdict) == Verdict(**GOOD)
    assert len(server.seen(name)) == 3
    if action == "429":
        assert all(nap >= 7 for nap in naps), "earlier than Retry-After"


@pytest.mark.parametrize("action", QUICK)
def test_tries_are_bounded(server, settings, action):
    with pytest.raises(Unanswered):
        endpoint(settings(tries=2)).ask(order(f"bounded {action}", action), Verdict)
    assert len(server.seen(f"bounded {action}")) == 2


def test_an_endpoint_that_is_silent_is_asked_again(server, settings):
    with pytest.raises(Unanswered, match="within 0.5 s"):
        endpoint(settings("slow", tries=2)).ask(order("silent", "slow"), Verdict)
    poll(lambda: len(server.seen("silent")) == 2)  # on a busy machine the server reads later than its client gives up


@pytest.mark.parametrize("action", FINAL)
def test_what_does_not_pass_is_not_tried_again(server, settings, action):
    with pytest.raises(FINAL[action]) as caught:
        endpoint(settings()).ask(order(f"final {action}", action), Verdict)
    assert len(server.seen(f"final {action}")) == 1
    assert len(str(caught.value).splitlines()) == 1
    if FINAL[action] is Refused:
        with pytest.raises(Refused):
            endpoint(settings()).ask(order(f"final {action}", action), Verdict)
        assert len(server.seen(f"final {action}")) == 1


def test_a_thousand_and_one_ways_end_in_an_answer_or_the_right_error(server, settings):
    draw = random.Random(0)
    scripts = [[draw.choice([*QUICK, *FINAL, "ok", "chatty"]) for _ in range(4)] for _ in range(40)]
    asked = endpoint(settings(tries=3))

    def outcome(index: int):
        try:
            return asked.ask(order(f"many {index:02}", *scripts[index]), Verdict)
        except (UserError, Unanswered) as error:
            return type(error)

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(outcome, range(len(scripts))))
    for index, script in enumerate(scripts):
        ends = [position for position, action in enumerate(script[:3]) if action not in QUICK]
        last = script[ends[0]] if ends else None
        assert outcomes[index] == (Verdict(**GOOD) if last in ("ok", "chatty") else FINAL.get(last, Unanswered))
        assert len(server.seen(f"many {index:02}")) == (ends[0] + 1 if ends else 3)


@pytest.mark.parametrize(
    ("path", "form", "numbers"),
    [
        ("", "json_schema", {"max_tokens", "temperature"}),
        ("/no_schema", "json_object", {"max_tokens", "temperature"}),
        ("/no_format", None, {"max_tokens", "temperature"}),
        ("/reasoning", "json_schema", {"max_completion_tokens"}),
    ],
)
def test_an_endpoint_is_spoken_to_as_it_understands(server, settings, path, form, numbers):
    asked = endpoint(settings(url=f"{server.address}{path}/v1"))
    for name in (f"dialect {path} 1", f"dialect {path} 2"):
        assert asked.ask(order(name, "chatty"), Verdict) == Verdict(**GOOD)
    for request in server.seen(f"dialect {path} "):
        assert request.get("response_format", {}).get("type") == form
        assert request.keys() & {"max_tokens", "temperature", "max_completion_tokens"} == numbers


def test_the_same_question_at_the_same_time_is_sent_once(server, settings):
    asked = endpoint(settings())
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: asked.ask(order("together", "hold"), Verdict), range(16)))
    assert answers == [Verdict(**GOOD)] * 16 and len(server.seen("together")) == 1


def test_askers_of_a_question_that_fails_share_its_failure(server, settings):
    def wait_for_the_others(_: float) -> None:
        (future,) = asked._pending.values()
        poll(lambda: len(future._condition._waiters) == 3)

    asked = Endpoint(settings(tries=2), sleep=wait_for_the_others)
    with ThreadPoolExecutor(4) as pool:
        pending = [pool.submit(asked.ask, order("fail together", "ok", answer=None), Verdict) for _ in range(4)]
        assert {type(each.exception()) for each in pending} == {Unanswered}
    assert len(server.seen("fail together")) == 2


def test_another_process_asks_nothing_again_and_needs_no_key(server, settings):
    _, text = order("processes", "ok")
    endpoint(settings()).ask([text], Verdict)
    code = (
        "import sys; from pathlib import Path; from pydantic import BaseModel\n"
        "from imvideoedit.clients.endpoint import Endpoint, EndpointSettings\n"
        "class Verdict(BaseModel):\n    'A judgement.'\n    score: int\n    why: str\n"
        "settings = EndpointSettings(url=sys.argv[1], model='tiny', cache=Path(sys.argv[2]))\n"
        "print(Endpoint(settings).ask([sys.argv[3]], Verdict).score)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    command = [sys.executable, "-c", code, server.url, str(settings().cache), text]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, text=True, capture_output=True)
    assert done.stdout == "3\n", done.stderr
    assert len(server.seen("processes")) == 1


def test_a_damaged_answer_on_disk_is_asked_for_again(server, settings):
    endpoint(settings()).ask(order("damaged", "ok"), Verdict)
    path = settings().cache / "answers.sqlite"
    for value in ("{}", "", 1, None, b"\xff"):
        with contextlib.closing(sqlite3.connect(path)) as cache, cache:
            cache.execute("UPDATE checked SET answer = ?", [value])
        assert endpoint(settings()).ask(order("damaged", "ok"), Verdict) == Verdict(**GOOD)
    for content in (b"", b"no database", path.read_bytes()[:-3000]):
        path.write_bytes(content)
        assert endpoint(settings()).ask(order("damaged", "ok"), Verdict) == Verdict(**GOOD)
        assert endpoint(settings()).ask(order("damaged", "ok"), Verdict) == Verdict(**GOOD)
    assert len(server.seen("damaged")) == 9


def test_image_files_are_sent_as_they_are(server, settings, tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "picture.png")
    parts = [(tmp_path / "picture.png").read_bytes(), *order("files", "ok")]
    endpoint(settings()).ask(parts, Verdict)
    assert server.seen("files")[0]["images"] == ["png", "jpeg"]


@pytest.mark.parametrize(("tokens", "fewest", "most"), [(None, 8, 11), ((40_000, 1_000), 8, 11), ((500, 10), 32, 32)])
def test_the_budget_is_never_passed_by_threads_or_restarts(server, settings, tokens, fewest, most):
    """An answer may cost a little over 0.09; what it does cost is not told (so all that), 0.09, or next to nothing."""
    paying = settings(input_price=1.0, output_price=50.0, max_cost=1.0, max_tokens=1_000, tries=2)
    answered = 0
    for restart in range(2):
        asked = endpoint(paying)

        def outcome(index: int, asked=asked, restart=restart):
            try:
                return asked.ask(order(f"paid {tokens} {restart} {index}", "429", "ok", tokens=tokens), Verdict)
            except UserError as error:
                assert "budget" in str(error)

        with ThreadPoolExecutor(8) as pool:
            answered += sum(isinstance(each, Verdict) for each in pool.map(outcome, range(16)))
    charged = sum(request["action"] == "ok" for request in server.seen(f"paid {tokens}"))
    assert answered == charged and fewest <= charged <= most
    assert asked.budget.spent <= 1.0
    if tokens:
        assert asked.budget.spent == pytest.approx(charged * paying.cost(*tokens))


def test_trouble_that_may_be_charged_counts_and_other_trouble_does_not(settings, server):
    prices = {"input_price": 1.0, "output_price": 1.0, "max_cost": 9.0, "tries": 1}
    free = ["429", "500", "400", "401", "404", "out of reach"]
    for action in [*free, "slow", "hang up", "page", "refuses", "wrong"]:
        place = {"url": unused()} if action == "out of reach" else {}
        asked = endpoint(settings(action, **prices, **place))
        before = asked.budget.spent
        with pytest.raises((UserError, Unanswered)):
            asked.ask(order(f"charged {action}", action), Verdict)
        assert (asked.budget.spent > before) == (action not in free)


def test_the_key_appears_nowhere(server, settings, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    texts = []
    for action in [*QUICK, *FINAL, "slow", "ok"]:
        asked = endpoint(settings(action, tries=1))
        try:
            texts.append(repr(asked.ask(order(f"key {action}", action, answer=GOOD | {"why": "<key>"}), Verdict)))
        except (UserError, Unanswered) as error:
            texts += ["".join(traceback.format_exception(error)), repr(error), repr(vars(error))]
            assert error.__cause__ is None and error.__context__ is None  # whose requests hold the key
        texts.append(repr([asked, asked.settings, vars(asked), asked.budget]))
    assert all(request["key"] == KEY for request in server.seen("key "))
    assert caplog.text and "***" in "".join(texts)
    kept = [f"{path} {path.read_text(errors='replace')}" for path in tmp_path.rglob("*") if path.is_file()]
    assert kept and KEY not in "".join([*texts, *kept, caplog.text, *capfd.readouterr()])


def test_what_users_get_wrong_is_said_in_one_line(settings, monkeypatch):
    def message(**changes) -> str:
        with pytest.raises(UserError) as caught:
            endpoint(settings(**changes)).ask(["hello"], Verdict)
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    assert "cannot reach" in message(url=unused())
    assert "no key" in message(key_variable="ANOTHER_KEY") and "ANOTHER_KEY" in message(key_variable="ANOTHER_KEY")
    monkeypatch.setenv("ANOTHER_KEY", "two\nwords-of-a-secret")
    assert "words-of" not in message(key_variable="ANOTHER_KEY")
