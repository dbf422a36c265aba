"""A recipe whose driver is killed outright, and one whose workers are: the data set is the same in the end."""

import os
import random
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from data_recipes.engine import Local
from data_recipes.stages import StageRun, shards_of
from data_recipes.synthesis import Synthesis
from imvideoedit.common.errors import UserError
from tests.processes import Command
from tests.recipes import content

OVERRIDES = ["+recipe=nano", "pairs=24", "plan.scenes_per_shard=3", "export.validation=0.2", "export.rows_per_file=7"]
KILLS = 10
FOLDERS = ("drafts", "prompts", "synthesize", "filter", "review")


@dataclass
class DieAt:
    """Kills its process when it renames or writes a file for the n-th time, and keeps count in a file."""

    last: int | None
    counter: Path
    count: int = 0

    def __call__(self) -> None:
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "os.rename" and (event != "open" or "w" not in str(arguments[1])):
            return
        if str(self.counter.parent) in str(arguments[0]) and str(arguments[0]) != str(self.counter):
            self.count += 1
            self.counter.write_text(str(self.count))
            if self.count == self.last:
                os.kill(os.getpid(), signal.SIGKILL)


def run(out: Path, last: int | None = None) -> int | None:
    """Run the recipe, up to the n-th file; returns its exit code."""
    process = Command("data_recipes.build", *OVERRIDES, f"out={out}", before=DieAt(last, out.with_suffix(".count")))
    process.communicate(1200)
    return process.returncode


@pytest.mark.slow
@pytest.mark.proof
def test_killed_at_ten_points_over_all_stages_it_ends_with_the_same_data(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(whole) == 0
    total = int(whole.with_suffix(".count").read_text())
    draw, stages = random.Random(5), set()
    for _ in range(KILLS):
        assert run(killed, draw.randint(2, 2 * total // KILLS)) == -signal.SIGKILL
        stages |= {path.name for path in killed.iterdir()}
    assert stages >= {*FOLDERS, ".export.new"}, "not every stage was killed"
    assert run(killed) == 0
    assert content(killed) == content(whole) and content(whole)
    for name in FOLDERS:
        assert list(shards_of(killed, name).rows()) == list(shards_of(whole, name).rows())
    leftovers = {path.name for path in (killed / "export").rglob("*")} - {p.name for p in (whole / "export").rglob("*")}
    assert not leftovers


class Deadly:
    """A painter whose process dies at its first row of one task, once."""

    models: dict[str, str] = {}

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def identity(self) -> str:
        return "deadly"

    def paint(self, rows, seeds):
        from data_recipes.nano import NanoPainter

        if any(row["task"] == "relighting" for row in rows):
            try:
                self.marker.touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return NanoPainter().paint(rows, seeds)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> Path:
    """A folder with prompts of six shards."""
    from tests.recipes import build

    out = tmp_path_factory.mktemp("prompts")
    build(out, "plan.scenes_per_shard=4", pairs=22, stage="prompts")
    return out


def painted(out: Path, shards: int) -> list[dict]:
    return [row for index in range(shards) for row in shards_of(out, "synthesize").read(index)]


@pytest.mark.slow
@pytest.mark.proof
def test_a_dead_local_worker_ends_the_run_in_one_line_and_another_run_goes_on(prompts, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "prompts").symlink_to(prompts / "prompts")
    count = shards_of(out, "prompts").count()
    run = StageRun(Synthesis(Deadly(tmp_path / "died")), out)
    with pytest.raises(UserError, match="died"):
        list(Local(workers=2).run(run, range(count)))
    assert sorted(Local(workers=2).run(run, run.missing(count)[1])) or not run.missing(count)[1]
    ids = [row["id"] for row in painted(out, count)]
    assert len(ids) == len(set(ids)) == shards_of(out, "prompts").manifest()["accepted"]


@pytest.mark.slow
@pytest.mark.proof
def test_a_dead_worker_of_a_ray_cluster_has_its_shard_made_by_another(prompts, tmp_path):
    ray = pytest.importorskip("ray", reason="Ray is not installed; pip install 'imvideoedit[recipes]'")
    from data_recipes.engine import Ray

    results = []
    for name, engine in (("local", Local()), ("ray", Ray(workers=2))):
        out = tmp_path / name
        out.mkdir()
        (out / "prompts").symlink_to(prompts / "prompts")
        count = shards_of(out, "prompts").count()
        marker = tmp_path / "died"
        if name == "local":
            marker.touch()
        else:
            marker.unlink()
        run = StageRun(Synthesis(Deadly(marker)), out)
        done = sorted(engine.run(run, run.missing(count)[1]))
        assert done == list(range(count))
        results.append(painted(out, count))
    ray.shutdown()
    assert marker.exists(), "no worker died"
    assert results[0] == results[1] and results[0]
