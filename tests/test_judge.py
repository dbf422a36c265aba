"""A judge behind a real server that misbehaves as it is told to; nothing is scored silently or asked twice."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from imvideoedit.clients.endpoint import Endpoint
from imvideoedit.common.errors import UserError
from imvideoedit.evaluation.edits.manifest import EditRow, read_methods
from imvideoedit.evaluation.edits.score_store import ScoreStore, Unscored
from imvideoedit.evaluation.judge.agreement import agreement, in_order
from imvideoedit.evaluation.judge.nano_check import METHODS, verdict
from imvideoedit.evaluation.judge.protocols import PAPER, PROTOCOLS, SIX, THREE
from imvideoedit.evaluation.judge.scorer import JudgeScorer, second_judge
from imvideoedit.evaluation.suites.edits import score_rows
from tests.edited_clips import write_edits
from tests.misbehaving_server import running, unused

POINTS = {"adherence": 21, "temporal": 25, "fidelity": 18, "artifacts": 12}
ANSWER = {"reasoning": "steady and sharp", "edited": True, **POINTS}


@pytest.fixture(scope="module")
def server():
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> EditRow:
    return read_methods(write_edits(tmp_path_factory.mktemp("edits"), 1, ("ours",)), [])[0]


@pytest.fixture
def judge(server, tmp_path, monkeypatch):
    """A judge that waits for nothing."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-0123456789")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("IMVIDEOEDIT_CACHE", str(tmp_path / "cache"))

    def make(**changes) -> JudgeScorer:
        given = {"url": server.url, "model": "tiny", "repeats": 1, "tries": 3, "backoff": 0.0, "frames": 2}
        made = JudgeScorer(**(given | changes))
        made._model = Endpoint(made._settings, sleep=lambda seconds: None)
        return made

    return make


def ordering(clip: EditRow, name: str, *script: str, **answer) -> EditRow:
    """The edit with an instruction that tells the server what to do."""
    order = {"name": name, "script": script, "answer": ANSWER | answer}
    return replace(clip, id=name, instruction=json.dumps(order))


@pytest.mark.parametrize("trouble", ["429", "503", "hang up", "half", "page", "cut", "wrong", "chatty"])
def test_trouble_that_passes_ends_in_the_score_that_was_given(server, judge, clip, trouble):
    row = ordering(clip, f"passing {trouble}", trouble, "ok")
    said = judge().score(row)
    assert {key: said[key] for key in POINTS} == POINTS and said["total"] == 76
    assert said["reasoning"] == "steady and sharp" and np.isnan(said["spread"])
    asked = server.seen(f"passing {trouble}")
    assert asked[0]["images"] == ["jpeg"] * 4 and asked[0]["temperature"] == 0


@pytest.mark.parametrize("trouble", ["refuses", "filtered", "page", "wrong", "400"])
def test_what_gets_no_answer_gets_no_score_and_says_why(judge, clip, trouble):
    with pytest.raises(Unscored, match=trouble):
        judge().score(ordering(clip, f"lasting {trouble}", trouble))


@pytest.mark.slow
def test_a_server_that_never_answers_costs_its_edit_alone(judge, clip):
    with pytest.raises(Unscored, match="did not answer within 1 s"):
        judge(timeout=1.0, tries=2).score(ordering(clip, "late", "slow"))


@pytest.mark.parametrize("points", [{"adherence": 31}, {"temporal": -1}, {"fidelity": "high"}, {"artifacts": 12.5}])
def test_points_out_of_range_are_no_answer(judge, clip, points):
    with pytest.raises(Unscored, match="PaperJudgement"):
        judge().score(ordering(clip, f"out of range {points}", "ok", **points))


def test_readings_are_independent_and_answers_are_never_asked_for_twice(server, judge, clip):
    row = ordering(clip, "thrice", "ok")
    said = judge(repeats=3).score(row)
    assert said["spread"] == 0 and len(server.seen("thrice")) == 3
    assert judge(repeats=3).score(row) == said and len(server.seen("thrice")) == 3
    assert judge(repeats=4).score(row)["total"] == 76
    assert len(server.seen("thrice")) == 7, "the words 'of 4' make other questions"


def test_a_partial_run_goes_on_where_it_stopped(server, judge, clip, tmp_path):
    good = [ordering(clip, f"part {number}", "ok") for number in range(3)]
    bad = ordering(clip, "part bad", "wrong", "wrong", "wrong", "ok")
    folder = ScoreStore(tmp_path / "scores")
    scores = folder.collect([good[0], bad, *good[1:]], judge())
    assert [("problem" in one) for one in scores] == [False, True, False, False]
    files = len(list((tmp_path / "scores").rglob("*.json")))
    again = ScoreStore(tmp_path / "scores").collect([good[0], bad, *good[1:]], judge())
    assert all(one["total"] == 76 for one in again) and files == 3
    assert [len(server.seen(f"part {number}")) for number in range(3)] == [1, 1, 1]
    assert len(server.seen("part bad")) == 4


def test_a_wrong_key_stops_the_run_but_keeps_what_was_scored(judge, clip, tmp_path):
    rows = [ordering(clip, "before", "ok"), ordering(clip, "denied", "401")]
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        ScoreStore(tmp_path / "scores").collect(rows, judge(workers=1))
    assert len(list((tmp_path / "scores").rglob("*.json"))) == 1
    with pytest.raises(UserError, match="cannot reach"):
        judge(url=unused(), tries=1).score(ordering(clip, "nowhere", "ok"))


def test_the_report_names_what_is_missing_and_compares_two_judges(judge, clip, tmp_path, capsys):
    rows = [ordering(clip, f"reported {n}", "ok", adherence=n) for n in (4, 12, 20, 29)]
    rows.append(ordering(clip, "reported refused", "refuses"))
    page = score_rows(tmp_path / "out", rows, [judge(), judge(name="second_judge", model="other")])
    text = page.read_text()
    assert "2 scores are missing" in text and "reported refused" in text and "Agreement" in text
    assert "2 scores are missing" in capsys.readouterr().err
    found = json.loads((tmp_path / "out" / "result.json").read_text())["agreements"]
    assert found["total, percent"] == {"pearson": 1, "spearman": 1, "mae": 0, "pairs": 4}


def test_totals_are_sums_or_means_and_nothing_passes_the_cap_where_nothing_was_edited():
    answer = PAPER.schema().model_validate(ANSWER)
    assert PAPER.total(PAPER.points(answer, untouched=True)) == 76 and PAPER.most == 100
    six = {dimension.key: 9.0 for dimension in SIX.dimensions} | {"adherence": 2.5}
    for edited, untouched, best in ((True, False, 9.0), (False, False, 6.0), (True, True, 6.0)):
        points = SIX.points(SIX.schema().model_validate({"reasoning": "", "edited": edited, **six}), untouched)
        assert points["style"] == best and points["adherence"] == 2.5
        assert SIX.total(points) == pytest.approx((5 * best + 2.5) / 6)
    with pytest.raises(ValidationError):
        THREE.schema().model_validate(
            {"reasoning": "", "edited": True, "following": 0, "quality": 5, "preservation": 5}
        )
    assert [protocol.most for protocol in PROTOCOLS.values()] == [100, 10, 10]


def test_the_pixels_tell_an_unedited_video_whatever_the_judge_says(judge, clip):
    points = {dimension.key: 9.5 for dimension in SIX.dimensions}
    changed = ordering(clip, "six", "ok", **points)
    assert judge(protocol="six").score(changed)["total"] == 9.5
    copied = replace(changed, edited=clip.source)
    assert judge(protocol="six").score(copied)["total"] == 6


def test_a_model_for_this_process_that_is_none_stops_the_run(clip, tmp_path, monkeypatch):
    monkeypatch.setenv("IMVIDEOEDIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model").mkdir()
    judge = JudgeScorer(local_model=str(tmp_path / "model"), repeats=1, frames=2)
    assert judge.workers == 1 and judge.model_name.endswith("model")
    with pytest.raises(UserError, match="the judge .*model cannot be used"):
        judge.score(clip)


def test_mistakes_in_settings_are_named():
    with pytest.raises(UserError, match="protocol 'seven'"):
        JudgeScorer(protocol="seven")
    with pytest.raises(UserError, match="at least 1"):
        JudgeScorer(repeats=0)
    assert second_judge() is None and second_judge(model="other").model_name == "other"


def test_agreement_is_what_scipy_says_and_a_constant_judge_agrees_with_nobody():
    found = agreement([1, 2, 3, 10], [2, 4, 6, 20])
    assert found["pearson"] == pytest.approx(1) and found["spearman"] == pytest.approx(1) and found["mae"] == 4
    assert np.isnan(agreement([5, 5, 5], [1, 2, 3])["pearson"])
    assert not in_order([1, 1, 0]) and in_order([3, 2, 1])


@pytest.mark.parametrize("judged, believed", [((90, 60, 40, 10), True), ((90, 40, 60, 10), False), ((50,) * 4, False)])
def test_a_judge_is_believed_only_in_the_right_order(judged, believed):
    rows = [EditRow(str(n), Path("s"), "i", Path("e"), method) for method in METHODS for n in range(2)]
    exact = {row.name: value for row, value in zip(rows, np.repeat([100, 55, 20, 5], 2), strict=True)}
    scores = [{"total": judged[METHODS.index(row.method)] + int(row.id)} for row in rows]
    found = verdict(rows, scores, exact, 100)
    assert found["in_order"] is believed and found["agreement"]["pairs"] == 8
    scores[0] = {"problem": "refused"}
    assert verdict(rows, scores, exact, 100)["unscored"] == ["refused"]


def test_a_reference_is_shown_where_the_protocol_has_a_word_on_it(judge, clip, tmp_path):
    picture = np.full((20, 30, 3), (10, 200, 30), np.uint8)
    Image.fromarray(picture).save(tmp_path / "r.png")
    given = replace(clip, inputs={"reference": tmp_path / "r.png"})
    for protocol, shown in ((SIX, True), (PAPER, False)):
        made, asked = judge(protocol=protocol.key), []
        points = {dimension.key: dimension.highest for dimension in protocol.dimensions}
        answer = protocol.schema().model_validate({"reasoning": "", "edited": True, **points})
        made._model = SimpleNamespace(ask=lambda parts, *rest, to=asked, of=answer: to.append(parts) or of)
        made.score(clip)
        made.score(given)
        plain, more = ([part.tobytes() if isinstance(part, np.ndarray) else part for part in parts] for parts in asked)
        added = [part for part in more if part not in plain]
        assert added == ([SIX.reference, picture.tobytes()] if shown else []) and len(more) == len(plain) + len(added)
    (tmp_path / "r.png").write_bytes(b"no picture")
    with pytest.raises(Unscored, match="r.png"):
        made = judge(protocol="six")
        made.score(given)
