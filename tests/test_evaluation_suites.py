"""Every suite from the command line, with small random networks: from a manifest to a report, on a CPU."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("pyiqa", reason="pyiqa is not installed; pip install 'imvideoedit[metrics]'")

from imvideoedit.evaluation.edits.manifest import read_manifest, write_manifest
from imvideoedit.evaluation.edits.score_store import ScoreStore
from imvideoedit.evaluation.metrics.scorer import MEASURES, OpenScorer
from imvideoedit.evaluation.vbench.cross_check import comparison_table, read_original
from imvideoedit.evaluation.vbench.scorer import DIMENSIONS, VBenchScorer
from imvideoedit.evaluation.weights import networks
from imvideoedit.evaluation.weights.tiny import write_tiny
from tests.edited_clips import write_edits
from tests.misbehaving_server import running
from tests.processes import command_environment, run
from tests.test_edit import assert_one_line
from tests.test_judge import ANSWER

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def edits(tmp_path_factory) -> Path:
    return write_edits(tmp_path_factory.mktemp("edits"), count=1)


def evaluate(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return run("imvideoedit.evaluate", *arguments, env=command_environment() | environment)


def test_all_measures_run_with_raft_and_come_out_alike_twice(weights, edits, tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "RAFT_UPDATES", 1)
    rows = read_manifest(edits)[:1]
    for scorer, names, again in (
        (VBenchScorer(weights=weights, device="cpu"), DIMENSIONS, VBenchScorer(weights=weights, device="cpu")),
        (OpenScorer(weights=weights, device="cpu"), MEASURES, OpenScorer(weights=weights, device="cpu")),
    ):
        (score,) = ScoreStore(tmp_path / "first").collect(rows, scorer)
        assert list(score) == list(names)
        unknown = {name for name, value in score.items() if not isinstance(value, float)}
        assert unknown <= {"warped_error"}, "random flows never undo each other, so nothing can be followed"
        assert ScoreStore(tmp_path / "second").collect(rows, again) == [score]


@pytest.mark.parametrize("suite, measures", [("vbench", DIMENSIONS), ("open", MEASURES)])
def test_a_suite_runs_from_a_manifest_to_a_report_that_says_its_weights_are_random(
    suite, measures, weights, edits, tmp_path
):
    done = evaluate(f"+suite={suite}", f"edits={edits}", f"weights={weights}", "flow=tvl1", f"out={tmp_path}")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "report" / "report.html").read_text()
    assert "random weights" in text and "Quoted" in text and "ours" in text and "other" in text
    header = (tmp_path / "scores.csv").read_text().splitlines()[0]
    assert all(f"{suite}.{name}" in header for name in measures)


def test_the_papers_suite_judges_and_measures_with_two_judges(weights, edits, tmp_path):
    order = {"name": "paper", "script": ["ok"], "answer": ANSWER}
    rows = [replace(row, instruction=json.dumps(order)) for row in read_manifest(edits)]
    write_manifest(rows, tmp_path / "edits.jsonl")
    with running() as server:
        environment = {"IMVIDEOEDIT_ENDPOINT": server.url, "IMVIDEOEDIT_MODEL": "tiny", "OPENAI_API_KEY": "any"}
        environment |= {"IMVIDEOEDIT_CACHE": str(tmp_path / "cache"), "NO_PROXY": "127.0.0.1"}
        order = ["+suite=paper", f"edits={tmp_path / 'edits.jsonl'}", f"weights={weights}", "flow=tvl1", "repeats=2"]
        done = evaluate(*order, "suite.scorers.second_judge.model=other", f"out={tmp_path / 'out'}", **environment)
        asked = len(server.seen("paper"))
        again = evaluate(*order, "suite.scorers.second_judge.model=other", f"out={tmp_path / 'out'}", **environment)
        assert len(server.seen("paper")) == asked == 2 * 2 * 2
    assert done.returncode == 0 == again.returncode, done.stderr + again.stderr
    text = (tmp_path / "out" / "report" / "report.html").read_text()
    assert "Agreement" in text and "second judge" in text and "tables 8 and 9" in text and "76" in text


def test_what_is_missing_costs_one_line(edits, tmp_path):
    assert_one_line(
        evaluate("+suite=vbench", f"edits={edits}", f"weights={tmp_path}"), "weight files are missing", "raft"
    )
    assert_one_line(evaluate("+suite=open", f"edits={tmp_path}", "flow=tvl1"), "no manifest")
    assert_one_line(evaluate("+suite=vbench"), "edits")
    assert_one_line(evaluate("+suite=benchmark", "benchmark=vie_bench"), "folder=DIR")


def test_a_benchmark_is_edited_and_scored_and_goes_on_where_it_stopped(edits, tmp_path):
    only = [row for row in read_manifest(edits) if row.method == "ours"]
    write_manifest([replace(only[0], edited=None, method="", prompt="")], tmp_path / "bench.jsonl")
    order = ["+suite=benchmark", f"benchmark={tmp_path / 'bench.jsonl'}", f"out={tmp_path / 'out'}", "flow=tvl1"]
    order += ["suite.quality=draft", "suite.scorers.open.measures=[warped_error,flicker,colour_drift]", "device=cpu"]
    first, second = evaluate(*order), evaluate(*order)
    assert first.returncode == 0 == second.returncode, first.stderr + second.stderr
    assert "1 made" in first.stderr and "1 made before" in second.stderr
    assert "open.warped_error" in (tmp_path / "out" / "scores.csv").read_text()


def test_the_cross_check_reads_the_packages_results_and_compares():
    results = {"imaging_quality": [0.6, [{"video_path": f"/a/{n}.mp4", "video_results": 60 + n} for n in range(4)]]}
    theirs = read_original(results)
    ours = {"imaging_quality": {str(n): 0.61 + n / 100 for n in range(4)}, "dynamic_degree": {"0": 1.0}}
    (row,) = comparison_table(ours, theirs).rows
    assert row == ["imaging_quality", "0.6250", "0.6150", "1.0000", "1.0000", "0.0100", "4"]
