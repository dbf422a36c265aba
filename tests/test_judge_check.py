"""The check of judges, on judges whose worth is known: one that knows the answers, and two that are worth nothing."""

import json
import os

import pytest

from imvideoedit.evaluation.edits.manifest import read_manifest
from imvideoedit.evaluation.edits.score_store import ScoreStore
from imvideoedit.evaluation.judge.nano_check import METHODS, make_edits, verdict
from imvideoedit.evaluation.judge.scorer import JudgeScorer
from tests.judge_server import FRAMES, running

pytestmark = pytest.mark.slow
PER_TASK, LENGTH = 1, 5


@pytest.fixture(scope="module")
def edits(tmp_path_factory, bundled_pipeline):
    folder = tmp_path_factory.mktemp("check")
    return folder, *make_edits(folder / "edits", bundled_pipeline, PER_TASK, LENGTH)


@pytest.mark.parametrize("temper", ["honest", "backwards", "constant"])
def test_only_the_judge_that_sees_the_answer_is_believed(edits, temper, monkeypatch):
    folder, rows, exact = edits
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("IMVIDEOEDIT_CACHE", str(folder / f"cache_{temper}"))
    with running(temper, PER_TASK, LENGTH) as url:
        judge = JudgeScorer(url=url, model=temper, repeats=1, frames=FRAMES)
        found = verdict(rows, ScoreStore(folder / f"scores_{temper}").collect(rows, judge), exact, 100)
    means = [found["means"][method]["exact"] for method in METHODS]
    assert means == sorted(means, reverse=True), "the exact scores themselves are in order"
    assert not found["unscored"] and found["agreement"]["pairs"] == 4 * 10 * PER_TASK
    assert found["in_order"] is (temper == "honest")
    if temper == "honest":
        assert found["agreement"]["spearman"] > 0.6
    if temper == "backwards":
        assert found["agreement"]["spearman"] < -0.6
    print(temper, json.dumps(found["means"]), json.dumps(found["agreement"]))


def test_the_edits_are_a_manifest_that_any_suite_takes(edits):
    folder, rows, _ = edits
    assert read_manifest(folder / "edits") == rows
    assert os.stat(rows[0].source).st_size > 0
