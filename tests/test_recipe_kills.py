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
FOLDERS = ("drafts", "prompts", "synthesize", "filter", "review")


@dataclass
class DieAt:
    """Kills its process when it is about to write or rename a file whose path holds a text for the n-th time."""

    folder: str
    last: int
    count: int = 0

    def __call__(self) -> None:
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" or (event == "open" and "w" in str(arguments[1])):
            self.count += f"/{self.folder}" in str(arguments[0])
            if self.count == self.last:
                os.kill(os.getpid(), signal.SIGKILL)


def run(out: Path, before: DieAt | None = None) -> int | None:
    """Run the recipe to its end; returns its exit code."""
    process = Command("data_recipes.build", *OVERRIDES, f"out={out}", before=before)
    process.communicate()
    return process.returncode


@pytest.mark.slow
@pytest.mark.proof
def test_killed_twice_in_each_stage_it_ends_with_the_same_data(tmp_path):
    whole, killed, draw = tmp_path / "whole", tmp_path / "killed", random.Random(5)
    assert run(whole) == 0
    for name in (*FOLDERS, "export"):
        half = sum(path.is_file() for path in (whole / name).rglob("*")) // 2
        for _ in range(2):
            point = DieAt(".export." if name == "export" else f"{name}/", draw.randint(1, half))
            assert run(killed, point) == -signal.SIGKILL, point
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
