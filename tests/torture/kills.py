"""Commands that are killed at points spread over their writes and steps, and started again."""

import json
import random
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from imvideoedit.training.checkpoints import latest
from tests.processes import command_environment
from tests.processes import run as run_command
from tests.torture.meter import KINDS, Meter
from tests.torture.table import Row
from tests.torture.victims import VICTIMS, Victim
from tests.torture.warm import warm
from tests.torture.whole import broken, is_temporary, temporaries

POINTS = 20  # of each signal and command
IN_A_ROW = 4  # kills of one folder
SIGNALS = (signal.SIGKILL, signal.SIGTERM)


@dataclass(frozen=True)
class Whole:
    """What a run leaves that is never killed, and what it counts."""

    counts: dict[str, int]
    result: Any
    hidden: set[str]


def run(scale: float, planted: bool) -> Iterator[Row]:
    """A row for each command and signal."""
    warm()
    victims = VICTIMS[1:2] if planted else VICTIMS
    points = max(2, round(POINTS * scale))
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2) as pool:
        wholes = pool.map(partial(_whole, Path(name), torn=planted), victims)
        cases = [(victim, whole, number) for victim, whole in zip(victims, wholes, strict=True) for number in SIGNALS]
        yield from pool.map(lambda case: Attack(Path(name), *case, planted).kill(points), cases)


def _start(victim: Victim, folder: Path, **how: Any) -> tuple[str, Any]:
    """Run a command; returns what it said on stderr, and its meter's report."""
    report = folder / "report"
    report.unlink(missing_ok=True)
    meter = Meter(str(folder / "out"), str(report), shard=victim.shard, **how)
    environment = command_environment() | {"IMVIDEOEDIT_CACHE": str(folder.parent / "cache")}
    done = run_command(victim.module, *victim.arguments, env=environment, cwd=folder, before=meter)
    told = json.loads(report.read_text()) if report.exists() else None
    if told != "killed" and done.returncode:
        raise RuntimeError(f"{victim.name} ended with {done.returncode}: {done.stderr[-600:]}")
    return done.stderr, told


def _prepared(parent: Path, victim: Victim) -> Path:
    folder = Path(tempfile.mkdtemp(dir=parent))
    victim.prepare(folder)
    return folder


def _whole(parent: Path, victim: Victim, torn: bool) -> Whole:
    folder = _prepared(parent, victim)
    counts = _start(victim, folder, torn=torn)[1]
    out = folder / "out"
    problems = [] if torn else list(broken(out))
    assert not problems, problems
    return Whole(counts, victim.result(out), temporaries(out))


class Attack:
    """Kills of one command by one signal."""

    def __init__(self, parent: Path, victim: Victim, whole: Whole, number: signal.Signals, torn: bool) -> None:
        self._parent, self._victim, self._whole, self._number, self._torn = parent, victim, whole, number, torn
        self._row = Row(f"kills: {victim.name}, {number.name}", 0)

    def kill(self, points: int) -> Row:
        """Kill it at so many points, some in a row in each folder, then let it end."""
        todo = self._points(points)
        while todo:
            folder = _prepared(self._parent, self._victim)
            try:
                self._in_a_row(folder, todo)
            except RuntimeError as error:
                self._row.failed.append(" ".join(str(error).split()))
                todo = todo[1:]
        return self._row

    def _points(self, points: int) -> list[tuple[str, int]]:
        kinds = [kind for kind in KINDS if self._whole.counts[kind] and not (self._torn and kind == "steps")]
        found = []
        for place, kind in enumerate(kinds):
            own = len(range(place, points, len(kinds)))
            total = self._whole.counts[kind]
            found += [(kind, int((each + 0.5) * total / own) + 1) for each in range(own)]
        random.Random(0).shuffle(found)
        return [(kind, min(at, self._whole.counts[kind])) for kind, at in found]

    def _in_a_row(self, folder: Path, todo: list[tuple[str, int]]) -> None:
        ended = False
        for place in range(IN_A_ROW):
            if not todo or ended:
                break
            kind, at = todo[0]
            ended = not self._one(folder, kind, at)
            if not ended:
                todo.pop(0)
            elif place == 0:
                self._row.notes.append(f"it never came to {kind} {at}")
                todo.pop(0)
        if not ended:
            self._one(folder)
        self._compare(folder / "out")

    def _one(self, folder: Path, kind: str = "writes", at: int = 0) -> bool:
        """Start it; returns whether it was killed."""
        out, what = folder / "out", f"after {kind} {at}"
        before, step, starts = self._kept(out), _step(out), len(_starts(out))
        said, told = _start(self._victim, folder, kind=kind, at=at, number=int(self._number), torn=self._torn)
        if "Traceback" in said:
            self._row.failed.append(f"{what}: a traceback: {said.strip().splitlines()[-1]}")
        after = self._kept(out)
        self._row.lost += [
            f"{what}: {name} was made again or is gone" for name in before if before[name] != after.get(name)
        ]
        begun = _starts(out)[starts:]  # none where it was killed before
        if begun and begun[-1] < step:
            self._row.lost.append(f"{what}: step {step} was saved, but it began at {begun[-1]}")
        if told == "killed":
            self._row.tried += 1
            self._row.failed += [f"{what}: {problem}" for problem in broken(out)]
        return told == "killed"

    def _kept(self, out: Path) -> dict[str, tuple[int, int]]:
        found = [path for pattern in self._victim.keeps for path in out.glob(pattern) if not is_temporary(path, out)]
        return {str(path.relative_to(out)): (path.stat().st_mtime_ns, path.stat().st_size) for path in found}

    def _compare(self, out: Path) -> None:
        left = temporaries(out) - self._whole.hidden
        if left:
            self._row.failed.append(f"left behind: {', '.join(sorted(left))}")
        try:
            same = self._victim.result(out) == self._whole.result
        except Exception as error:
            self._row.failed.append(f"its result cannot be read: {type(error).__name__}: {error}")
            return
        if not same:
            self._row.failed.append(f"another result than that of a run that was never killed, in {out}")


def _step(out: Path) -> int:
    """Of the latest checkpoint."""
    found = latest(out / "checkpoints") if (out / "checkpoints").is_dir() else None
    return found[1]["step"] if found else 0


def _starts(out: Path) -> list[int]:
    """The steps that starts of a training began at."""
    path = out / "starts.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []
