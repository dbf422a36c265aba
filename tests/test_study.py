"""A study as it is planned, kept and analysed: blind, in a rater's own order, and never asked twice."""

import json
import math

import numpy as np
import pytest

from imvideoedit.common.errors import UserError
from imvideoedit.evaluation.edits.manifest import read_manifest
from imvideoedit.evaluation.reporting.statistics import krippendorff
from imvideoedit.evaluation.study.analysis import agreement_of_raters, opinion_table, preference_table, scored_by_people
from imvideoedit.evaluation.study.plan import blind_copy, items_of, order_for, rater_key
from imvideoedit.evaluation.study.ratings import Rating, Ratings
from imvideoedit.evaluation.study.session import RatingSession
from imvideoedit.evaluation.study.suite import run_study
from imvideoedit.video.reader import read_metadata, read_video, write_video
from tests.clips import flat_frames, levels_of
from tests.edited_clips import write_edits


@pytest.fixture(scope="module")
def edits(tmp_path_factory):
    return write_edits(tmp_path_factory.mktemp("edits"))


@pytest.fixture(scope="module")
def rows(edits):
    return read_manifest(edits)


def test_every_edit_is_asked_once_and_every_pair_of_methods(rows):
    assert len(items_of(rows, "ratings")) == 6
    pairs = items_of(rows, "pairs")
    assert [tuple(row.method for row in item.rows) for item in pairs] == [("ours", "other")] * 3
    assert len({item.key for item in pairs}) == 3


def test_each_rater_has_an_order_and_sides_of_their_own_and_always_the_same(rows):
    items = items_of(rows, "pairs") * 20
    orders = {name: order_for(items, rater_key(name), 0) for name in ("Ann", "Bob")}
    assert orders["Ann"] == order_for(items, rater_key(" ann "), 0) and orders["Ann"] != orders["Bob"]
    assert sorted(item.key for item in orders["Ann"]) == sorted(item.key for item in items)
    left = sum(item.rows[0].method == "ours" for item in orders["Ann"])
    assert 15 < left < 45, "sides are drawn"


def test_a_blind_copy_shows_the_video_and_tells_nothing(tmp_path):
    path = tmp_path / "method_x" / "clip.mp4"
    path.parent.mkdir()
    write_video(path, flat_frames((40, 120, 200), 48, 48), fps=8, metadata={"comment": "made by method_x"})
    copy = blind_copy(path, tmp_path / "media", 0)
    video, info = read_video(copy)
    assert video.shape == (3, 288, 288, 3) and info.fps == 8 and "method" not in copy.name
    assert "method_x" not in str(read_metadata(copy)) and not info.has_audio
    assert levels_of(video) == [40, 120, 200]
    stamp = copy.stat().st_mtime_ns
    assert blind_copy(path, tmp_path / "media", 0).stat().st_mtime_ns == stamp


def test_who_comes_back_goes_on_and_an_answer_says_nothing_of_who_gave_it(rows, tmp_path):
    session = RatingSession(rows, "ratings", tmp_path, seed=1)
    first = session.next_for("Ann")
    assert first.number == 1 and first.count == 6 and len(first.edited) == 1
    session.answer("Ann", first, 4)
    again = RatingSession(rows, "ratings", tmp_path, seed=1)
    second = again.next_for("ann")
    assert second.number == 2 and second.item.key != first.item.key
    assert again.next_for("Bob").number == 1
    (rating,) = again.ratings.read(again.items)
    assert rating.value == 4 and rating.methods == (first.item.rows[0].method,)
    assert "ann" not in json.dumps(rating.__dict__).lower()
    for _ in range(5):
        again.answer("Ann", again.next_for("Ann"), 3)
    assert again.next_for("Ann") is None


def rate(rows, values, tmp_path, mode="ratings"):
    """``values``: rater -> method -> value for every edit."""
    session = RatingSession(rows, mode, tmp_path, seed=0)
    for rater, own in values.items():
        for number, item in enumerate(session.items):
            methods = tuple(row.method for row in item.rows)
            value = own[methods[0]] if mode == "ratings" else own[number % len(own)]
            session.ratings.write(Rating(rater, item.key, methods, value, 1.0))
    return session, session.ratings.read(session.items)


def test_opinion_scores_are_the_means_with_intervals(rows, tmp_path):
    values = {f"r{n}": {"ours": 4 + n % 2, "other": 2} for n in range(4)}
    session, ratings = rate(rows, values, tmp_path)
    table = {line[0]: line[1:] for line in opinion_table(session.items, ratings).rows}
    assert table["ours"][0] == "4.50" and table["other"] == ["2.00", "2.00 to 2.00", "12", "4", "3"]
    low, high = map(float, table["ours"][1].split(" to "))
    assert 4 <= low < 4.5 < high <= 5
    scored = scored_by_people(rows, session.items, ratings, "ratings")
    assert {one.row.method: one.values for one in scored} == {
        "ours": {"study.rating": 4.5},
        "other": {"study.rating": 2.0},
    }
    by_hand = np.array([[4 + n % 2, 2] * 3 for n in range(4)], float)
    assert agreement_of_raters(session.items, ratings, "ratings") == pytest.approx(krippendorff(by_hand))


def test_preferences_count_wins_ties_and_losses_whatever_side_was_shown(rows, tmp_path):
    session = RatingSession(rows, "pairs", tmp_path, seed=0)
    for number, item in enumerate(session.items):
        for rater, swapped in (("a", False), ("b", True)):
            methods = tuple(row.method for row in item.rows)[:: -1 if swapped else 1]
            better = 0.5 if number == 2 else 1.0 if methods[0] == "ours" else 0.0
            session.ratings.write(Rating(rater, item.key, methods, better, 1.0))
    ratings = session.ratings.read(session.items)
    (line,) = preference_table(session.items, ratings).rows
    assert line[:4] == ["ours against other", "4", "2", "0"] and line[4].startswith("0.83 (")
    assert float(line[5]) == pytest.approx(2 * 0.5**4)
    assert agreement_of_raters(session.items, ratings, "pairs") == 1
    shares = {
        one.row.name: one.values["study.preferred"] for one in scored_by_people(rows, session.items, ratings, "pairs")
    }
    assert shares["ours/clip_0"] == 1 and shares["other/clip_0"] == 0 and shares["ours/clip_2"] == 0.5


def test_the_report_of_a_study_and_what_is_missing(edits, rows, tmp_path):
    with pytest.raises(UserError, match="nothing was rated yet"):
        run_study(tmp_path, edits, [], page=False)
    with pytest.raises(UserError, match="suite.mode"):
        run_study(tmp_path, edits, [], mode="best")  # type: ignore[arg-type]
    rate(rows, {f"r{n}": {"ours": 5, "other": 1 + n % 2} for n in range(3)}, tmp_path)
    text = run_study(tmp_path, edits, [], page=False).read_text()
    assert "Mean opinion scores" in text and "Krippendorff" in text and "Answers: 18, raters: 3, questions: 6" in text
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["answers"] == 18 and 0 < found["alpha"] <= 1


def test_a_damaged_answer_is_named_and_one_rater_has_no_alpha(rows, tmp_path):
    session, ratings = rate(rows, {"r": {"ours": 5, "other": 1}}, tmp_path)
    assert math.isnan(agreement_of_raters(session.items, ratings, "ratings"))
    (tmp_path / "ratings" / "r" / f"{session.items[0].key}.json").write_text("{")
    with pytest.raises(UserError, match="remove it, and the question is asked again"):
        Ratings(tmp_path / "ratings").read(session.items)
