"""Scoring 250 edits of two methods takes no more memory than scoring a few, and the report of them is made."""

import psutil
import pytest
import torch

pytest.importorskip("pyiqa", reason="pyiqa is not installed; pip install 'imvideoedit[metrics]'")

from imvideoedit.evaluation.edits.manifest import read_methods
from imvideoedit.evaluation.edits.score_store import Score
from imvideoedit.evaluation.metrics.scorer import OpenScorer
from imvideoedit.evaluation.suites.edits import score_rows
from imvideoedit.evaluation.vbench.scorer import VBenchScorer
from imvideoedit.evaluation.weights.tiny import write_tiny
from tests.edited_clips import write_edits

EDITS, METHODS = 250, ("ours", "other")
GROWTH = 32 * 2**20  # bytes that the allocator may keep; a clip alone has 20 kB a frame and all of them 30 MB
OPEN = ["clip_temporal", "flicker", "ssim_structure_only", "lpips_structure_only"]
VBENCH = ["subject_consistency", "background_consistency"]


class Watched:
    """Notes the process's memory after every edit."""

    def score(self, row) -> Score:
        found = super().score(row)  # type: ignore[misc]
        self.seen = [*getattr(self, "seen", []), psutil.Process().memory_info().rss]
        return found


class WatchedOpen(Watched, OpenScorer):
    pass


class WatchedVBench(Watched, VBenchScorer):
    pass


@pytest.mark.slow
@pytest.mark.proof
def test_250_edits_of_two_methods_are_scored_at_fixed_memory(tmp_path):
    torch.set_num_threads(1)
    write_tiny(tmp_path / "weights")
    write_edits(tmp_path / "edits", EDITS, METHODS)
    rows = read_methods(tmp_path / "edits", [])
    common = {"weights": tmp_path / "weights", "flow": "tvl1", "device": "cpu"}
    scorers = [WatchedOpen(OPEN, **common), WatchedVBench(VBENCH, **common)]
    page = score_rows(tmp_path / "out", rows, scorers)
    assert len(rows) == len(METHODS) * EDITS and "500 edits by ours, other" in page.read_text()
    for scorer in scorers:
        assert len(scorer.seen) == len(rows)
        megabytes = [round(seen / 2**20) for seen in (scorer.seen[20], scorer.seen[100], scorer.seen[-1])]
        print(scorer.name, "MiB after 21, 101 and 500 edits:", *megabytes)
        assert scorer.seen[-1] - scorer.seen[20] < GROWTH
