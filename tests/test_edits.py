"""Lists of edits, and scores that are kept: what is missing or broken is named, nothing is scored twice."""

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from imvideoedit.common.errors import UserError
from imvideoedit.evaluation.edits.manifest import read_manifest, read_methods, write_manifest
from imvideoedit.evaluation.edits.score_store import ScoreStore, Unscored
from imvideoedit.evaluation.edits.scored_edits import gather, write_scored_edits
from imvideoedit.evaluation.edits.videos import open_edit
from imvideoedit.evaluation.suites.edits import score_rows
from imvideoedit.video.reader import write_video
from tests.edited_clips import moving, write_edits


class Counting:
    """Scores an edit by its instruction's length, and counts how often it is asked."""

    name, kind, scales, lower = "count", "open", {}, frozenset()

    def __init__(self, identity: str = "one", workers: int = 1) -> None:
        self._identity, self.workers = identity, workers
        self.asked: list[str] = []
        self.at_once, self._lock, self.most = 0, threading.Lock(), 0

    def identity(self):
        return self._identity

    def facts(self):
        return []

    warnings = facts

    def score(self, row):
        with self._lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        self.asked.append(row.name)
        open_edit(row)
        with self._lock:
            self.at_once -= 1
        if "clip_1" in row.id:
            raise Unscored("too\nhard")
        return {"length": len(row.instruction), "unknown": float("nan"), "reasoning": "said"}


@pytest.fixture(scope="module")
def edits(tmp_path_factory) -> Path:
    return write_edits(tmp_path_factory.mktemp("edits"))


def test_a_manifest_comes_back_as_it_was_written_with_paths_that_move_with_it(edits, tmp_path):
    rows = read_manifest(edits)
    assert [row.name for row in rows[:2]] == ["ours/clip_0", "other/clip_0"] and rows[0].prompt == "a bright red ball"
    moved = shutil.copytree(edits, tmp_path / "moved")
    assert [row.edited.parts[-2:] for row in read_manifest(moved)] == [row.edited.parts[-2:] for row in rows]
    assert str(edits) not in (edits / "manifest.jsonl").read_text()
    write_manifest(rows, tmp_path / "again" / "manifest.jsonl")
    assert read_manifest(tmp_path / "again") == rows


def test_a_folder_of_videos_is_compared_by_their_names(edits, tmp_path):
    only = [row for row in read_manifest(edits) if row.method == "ours"]
    write_manifest(only, tmp_path / "manifest.jsonl")
    rows = read_methods(tmp_path, [edits / "other"])
    assert rows == read_methods(str(tmp_path), str(edits / "other"))
    assert [row.name for row in rows[3:]] == ["other/clip_0", "other/clip_1", "other/clip_2"]
    assert rows[3].instruction == rows[0].instruction and rows[3].edited.parent.name == "other"
    with pytest.raises(UserError, match="no video in .* is named after"):
        (tmp_path / "empty").mkdir()
        read_methods(tmp_path, [tmp_path / "empty"])


@pytest.mark.parametrize(
    "line, words",
    [
        ("{", "not JSON"),
        ('{"instruction": "x"}', "no source"),
        ('{"source": "a.mp4"}', "no instruction"),
        ('{"source": "gone.mp4", "instruction": "x"}', "no source at"),
        ('{"source": "a.mp4", "instruction": "x"}', "no edited video"),
        ('{"source": "a.mp4", "instruction": "x", "edited": "a.mp4"}\n' * 2, "two edits called"),
        ("", "no edit in"),
    ],
)
def test_what_is_wrong_with_a_row_is_said_in_one_line(tmp_path, line, words):
    write_video(tmp_path / "a.mp4", moving(1, 0), fps=8)
    (tmp_path / "manifest.jsonl").write_text(line)
    with pytest.raises(UserError, match=words):
        read_methods(tmp_path, [])
    with pytest.raises(UserError, match="no manifest"):
        read_methods(tmp_path / "a.mp4", [])


def test_scores_are_made_once_and_again_only_for_what_changed(edits, tmp_path):
    rows, first = read_manifest(edits), Counting()
    scores = ScoreStore(tmp_path).collect(rows, first)
    assert [one.get("length") for one in scores] == [21, 21, None, None, 21, 21]
    assert scores[2] == {"problem": "too hard"} and scores[0]["unknown"] is None
    second = Counting()
    assert ScoreStore(tmp_path).collect(rows, second) == scores
    assert second.asked == ["ours/clip_1", "other/clip_1"], "only what got no score is asked again"
    changed = Counting("other settings")
    ScoreStore(tmp_path).collect(rows[:2], changed)
    assert len(changed.asked) == 2
    moved = shutil.copytree(edits, tmp_path / "moved")
    third = Counting()
    ScoreStore(tmp_path).collect(read_manifest(moved)[:2], third)
    assert third.asked == []


def test_a_scorer_that_cannot_go_on_stops_but_keeps_what_there_is(edits, tmp_path):
    class Broken(Counting):
        def score(self, row):
            if row.id == "clip_2":
                raise UserError("no key")
            return super().score(row)

    with pytest.raises(UserError, match="no key"):
        ScoreStore(tmp_path).collect(read_manifest(edits), Broken())
    assert len(list(tmp_path.rglob("*.json"))) == 2


def test_any_other_error_of_a_scorer_costs_one_score(edits, tmp_path):
    class Faulty(Counting):
        def score(self, row):
            if row.name == "ours/clip_0":
                raise RuntimeError("device-side\nassert")
            return super().score(row)

    rows = read_manifest(edits)
    scores = ScoreStore(tmp_path).collect(rows, Faulty())
    problems = {row.name: score["problem"] for row, score in zip(rows, scores, strict=True) if "problem" in score}
    assert problems["ours/clip_0"] == "RuntimeError: device-side assert" and len(problems) == 3


def test_no_more_edits_are_scored_at_once_than_was_said(edits, tmp_path):
    scorer = Counting(workers=3)
    ScoreStore(tmp_path).collect(read_manifest(edits) * 5, scorer)
    assert 1 <= scorer.most <= 3


def test_a_damaged_video_costs_its_own_score_alone(edits, tmp_path):
    moved = shutil.copytree(edits, tmp_path / "moved")
    rows = read_manifest(moved)
    rows[0].edited.write_bytes(b"no video")
    scores = ScoreStore(tmp_path / "scores").collect(rows, Counting())
    assert "problem" in scores[0] and str(rows[0].edited) in scores[0]["problem"] and "length" in scores[1]


def test_videos_of_other_sizes_and_rates_are_brought_to_the_edited_ones(edits, tmp_path):
    row = read_manifest(edits)[0]
    write_video(tmp_path / "wide.mp4", moving(6, 1)[:, :, :32], fps=16)
    edited, source, mask = open_edit(replace(row, edited=tmp_path / "wide.mp4"))
    frames = list(source)
    assert len(edited) == 6 and {frame.shape for frame in frames} == {(48, 32, 3)} and mask is None
    assert len(source) == 6, "three frames at 8 a second are six at 16"


def test_the_report_is_whole_in_itself_and_harmless(edits, tmp_path, capsys):
    rows = [replace(row, instruction="<script>alert(1)</script>") for row in read_manifest(edits)]
    page = score_rows(tmp_path, rows, [Counting()], "a & b")
    text = page.read_text()
    assert "<script" not in text and "&lt;script" in text and "http://" not in text and "https://" not in text
    assert "2 scores are missing" in text and "Best and worst edits" in text and "Quoted" in text
    folder = tmp_path / "report"
    assert {"bars_count_length.png", "table_01.csv", "table_01.tex", "tables.md"} <= {p.name for p in folder.iterdir()}
    assert json.loads((tmp_path / "result.json").read_text())["edits"][0]["numbers"] == {"count.length": 25}
    assert (tmp_path / "scores.csv").read_text().startswith("method,task,id,instruction,count.length,problems\n")


def test_what_was_said_is_gathered_by_kind(edits, tmp_path):
    rows = read_manifest(edits)[:2]
    scored = gather(rows, {"a": [{"x": 1, "words": "w"}, {"problem": "p"}], "b": [{"x": None}, {"x": 2.5}]})
    assert scored[0].values == {"a.x": 1} and scored[0].texts == {"a.words": "w"}
    assert scored[1].values == {"b.x": 2.5} and scored[1].problems == {"a": "p"}
    write_scored_edits(scored, {}, tmp_path)
    assert (tmp_path / "scores.csv").read_text().splitlines()[0].endswith("a.x,b.x,problems")
