"""Reviewers' decisions: stored, applied, compared; and the review page in a real browser."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_recipes.agreement import agreement, calibrate, describe
from data_recipes.decisions import Decision, Decisions
from data_recipes.review_queue import ReviewQueue
from data_recipes.rows import CRITERIA
from data_recipes.stages import shards_of
from imvideoedit.common.errors import UserError
from imvideoedit.data.records import open_records
from tests.browser import BROWSER, DRIVER, refuses_strangers, until
from tests.processes import command_environment
from tests.recipes import build

PAIRS = 12


@pytest.fixture
def made(tmp_path) -> Path:
    """A filtered nano recipe."""
    out = tmp_path / "nano"
    for stage in ("prompts", "synthesize", "filter"):
        build(out, pairs=PAIRS, stage=stage)
    return out


def test_decisions_survive_a_torn_line_and_the_last_one_holds(tmp_path):
    decisions = Decisions(tmp_path)
    decisions.write("ann", Decision("a", True))
    decisions.write("ann", Decision("b", True))
    with (tmp_path / "ann.jsonl").open("a") as file:
        file.write('\n{"id": "c", "acc')
    decisions.write("ann", Decision("a", False, {"instruction": "anew"}))
    decisions.write("Bob B.x", Decision("a", True))
    read = decisions.read()
    assert {name: set(said) for name, said in read.items()} == {"a": {"ann", "Bob B.x"}, "b": {"ann"}}
    assert not read["a"]["ann"].accept and read["a"]["ann"].texts == {"instruction": "anew"}
    for name in ("", "../ann", "a/b", " ann", "x" * 65):
        with pytest.raises(UserError, match="reviewer"):
            decisions.write(name, Decision("a", True))


def test_reviewers_overrule_the_filter_and_correct_texts(made):
    ids = [row["id"] for row in shards_of(made, "filter").rows() if row["accepted"]]
    decisions = Decisions(made / "decisions")
    decisions.write("ann", Decision(ids[0], False))
    decisions.write("ann", Decision(ids[1], True, {"edited_prompt": "A corrected prompt."}))
    for reviewer, accept in (("ann", True), ("bob", False)):  # none has more
        decisions.write(reviewer, Decision(ids[2], accept))
    build(made, pairs=PAIRS, stage="review")
    rows = {row["id"]: row for row in shards_of(made, "review").rows()}
    assert [rows[name]["accepted"] for name in ids[:4]] == [False, True, False, True]
    assert rows[ids[0]]["reason"] == "reviewer" and rows[ids[1]]["edited_prompt"] == "A corrected prompt."
    build(made, pairs=PAIRS, stage="export")
    records = open_records(made / "export")
    exported = {record.id: record for record in (records[i] for i in range(len(records)))}
    assert ids[0] not in exported
    assert exported[ids[1]].edited_prompt == "A corrected prompt." if ids[1] in exported else True
    decisions.write("ann", Decision(ids[0], True))
    build(made, pairs=PAIRS, stage="review")
    assert next(row for row in shards_of(made, "review").rows() if row["id"] == ids[0])["accepted"]


def test_table_6_on_scores_worked_out_by_hand():
    judge = np.array([[7, 8, 9], [5, 8, 9], [2, 3, 4], [6, 6, 6]], dtype=float)
    other = np.array([[7, 8, 9], [7, 8, 9], [2, 3, 4], [5, 5, 5]], dtype=float)
    found = agreement(judge, other)
    errors = np.array([0, 1 / 3, 0, 1])
    assert found.pairs == 4
    assert math.isclose(found.mean_error, errors.mean()) and math.isclose(found.variance, errors.var())
    assert math.isclose(found.pearson, np.corrcoef(judge.ravel(), other.ravel())[0, 1])
    assert math.isclose(agreement(judge, judge).pearson, 1) and agreement(judge, judge).mean_error == 0
    assert math.isnan(agreement(judge, np.full_like(judge, 7)).pearson)


@given(st.lists(st.tuples(st.sampled_from([2.0, 4.0, 5.5, 7.0, 9.0]), st.booleans()), min_size=1, max_size=30))
def test_the_best_threshold_is_never_worse_than_the_current_one(pairs):
    now, best, then = calibrate(pairs)
    assert then >= now and then == np.mean([(score >= best) == accept for score, accept in pairs])


def test_disagreement_comes_first(made):
    path = shards_of(made, "filter")
    rows = path.read(0)
    judged = [row for row in rows if json.loads(row["scores"])]
    unsure, torn = judged[3], judged[5]
    unsure["scores"] = json.dumps(dict.fromkeys(CRITERIA, 6.5))
    torn["crossed"] = json.dumps({"second": dict.fromkeys(CRITERIA, 1.0)})
    path.write(0, rows, path.key(0))
    queue = ReviewQueue(made, accept=6)
    assert queue.order("disagreement")[:2] == [torn["id"], unsure["id"]]
    assert sorted(queue.order("random")) == sorted(queue.order("disagreement")) != queue.order("random")
    item = queue.item(torn["id"], "ann")
    queue.decide("ann", item, False, item.texts)
    assert "They would agree most" in describe(made) and "| second |" in describe(made)
    same = item.source == item.target
    assert (item.difference[same.all(-1)] == 255).all() and item.difference.min() < 200


@pytest.fixture
def page(made) -> Iterator[tuple[str, Path]]:
    """The review page's address and the recipe's folder."""
    command = [sys.executable, "-m", "data_recipes.review", str(made), "--port", "0"]
    process = subprocess.Popen(command, env=command_environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
    assert found
    refuses_strangers(found[0])
    yield found[0], made
    process.send_signal(signal.SIGKILL)
    process.wait()


def open_page(address: str, reviewer: str) -> Any:
    """A browser at the page."""
    if BROWSER is None or DRIVER is None:
        pytest.skip("Chromium and its driver are not installed; apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1280,1300"):
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.get(f"{address}/?reviewer={reviewer}")
    until(lambda: "pair " in text(driver, "#status") and value(driver, "instruction"))
    return driver


def text(driver: Any, selector: str) -> str:
    return driver.find_element("css selector", selector).text


def value(driver: Any, name: str) -> str:
    return driver.find_element("css selector", f"#{name} textarea").get_attribute("value")


@pytest.mark.slow
def test_a_reviewer_accepts_rejects_and_corrects_by_keyboard_and_nothing_is_lost(page, tmp_path):
    pytest.importorskip("gradio", reason="gradio is not installed; pip install 'imvideoedit[app]'")
    address, out = page
    order = ReviewQueue(out, 6).order("random")
    rows = {row["id"]: row for row in shards_of(out, "synthesize").rows()}
    driver = open_page(address, "ann")
    try:
        body = driver.find_element("css selector", "body")
        assert value(driver, "instruction") == rows[order[0]]["instruction"]
        until(lambda: len(driver.find_elements("css selector", "#slider img")) >= 2)
        assert driver.find_elements("css selector", "#difference img")
        assert all(name in text(driver, "#judge") for name in CRITERIA)
        if os.environ.get("IMVIDEOEDIT_PICTURES"):
            driver.save_screenshot(str(Path(os.environ["IMVIDEOEDIT_PICTURES"]) / "review.png"))
        body.send_keys("a")
        until(lambda: "pair 2 " in text(driver, "#status"))
        body.send_keys("r")
        until(lambda: "pair 3 " in text(driver, "#status"))
        field = driver.find_element("css selector", "#instruction textarea")
        field.send_keys(" at all")  # the letters a and r in a text press nothing
        assert "pair 3 " in text(driver, "#status")
        field.send_keys("\ue00c")  # Escape leaves the text
        body.send_keys("a")
        until(lambda: "pair 4 " in text(driver, "#status"))
        body.send_keys("b")
        until(lambda: "pair 3 " in text(driver, "#status") and value(driver, "instruction").endswith(" at all"))
        assert "You accepted it before" in text(driver, "#judge")
    finally:
        driver.quit()
    read = Decisions(out / "decisions").read()
    assert [read[name]["ann"].accept for name in order[:3]] == [True, False, True]
    assert read[order[2]]["ann"].texts == {"instruction": rows[order[2]]["instruction"] + " at all"}
    assert not read[order[0]]["ann"].texts and len(read) == 3
