"""A recipe whose driver is killed outright, and one whose workers are: the data set is the same in the end."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_recipes.engine import Local
from data_recipes.stages import Work, shards_of
from data_recipes.synthesis import Synthesis
from imvideoedit.common.errors import UserError
from tests.processes import command_environment
from tests.recipes import content

SETTINGS = ["+recipe=nano", "pairs=60", "plan.scenes_per_shard=3", "export.validation=0.2", "export.rows_per_file=7"]
KILLS = 10
FOLDERS = ("drafts", "prompts", "synthesize", "filter", "review")


def start(out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "data_recipes.build", *SETTINGS, f"out={out}"]
    return subprocess.Popen(
        command, env=command_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def files(out: Path) -> int:
    """How far a run is: files of all stages, also those of an export under way."""
    return sum(path.is_file() for path in out.rglob("*")) if out.exists() else 0


@pytest.mark.slow
@pytest.mark.proof
def test_killed_at_ten_points_over_all_stages_it_ends_with_the_same_data(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(whole)
    assert process.wait(1200) == 0, process.stderr.read()
    points = sorted(random.Random(5).sample(range(1, files(whole) - 1), KILLS))
    for point in points:
        process = start(killed)
        while process.poll() is None and files(killed) < point:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"it had ended before point {point} of {points}"
    process = start(killed)
    assert process.wait(1200) == 0, process.stderr.read()
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
    work = Work(Synthesis(Deadly(tmp_path / "died")), out)
    with pytest.raises(UserError, match="died"):
        list(Local(workers=2).run(work, range(count)))
    assert sorted(Local(workers=2).run(work, work.missing(count)[1])) or not work.missing(count)[1]
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
        work = Work(Synthesis(Deadly(marker)), out)
        done = sorted(engine.run(work, work.missing(count)[1]))
        assert done == list(range(count))
        results.append(painted(out, count))
    ray.shutdown()
    assert marker.exists(), "no worker died"
    assert results[0] == results[1] and results[0]
