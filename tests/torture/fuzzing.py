"""Mutants of seeds against a reader, in processes of their own: accepted, refused in one line, or a failure.

Mutants that reach new lines of the package, or are refused in new words, become seeds themselves.
"""

import ctypes
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tests.torture.judging import NEW, judged, shape_of
from tests.torture.mutants import Mutator
from tests.torture.table import Row

PATIENCE = 120.0  # seconds without a word, for what waits without using the processor
ALIKE = 3  # mutants kept of failures that are alike
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # files there are not written to a disk
CORPUS = 300  # seeds at most
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Target:
    """A reader under attack.

    Attributes:
        name: of the row.
        count: mutants at scale 1.
        file: that a mutant is written to, in a folder of its own.
        seeds: good contents.
        mutate: makes another content from one.
        check: reads the file; returns nothing where it was accepted and is as it should be.
        folder: copied next to the file first.
        grows: whether mutants that were refused in new words or reach new lines become seeds.
        guided: whether lines that are reached decide what becomes a seed.
        seconds: of processor time for one mutant.
        gigabytes: more than at the start, for one mutant.
    """

    name: str
    count: int
    file: str
    seeds: Sequence[bytes]
    mutate: Mutator
    check: Callable[[Path], Any]
    folder: Path | None = None
    guided: bool = True
    grows: bool = True
    seconds: float = 10.0
    gigabytes: float = 2.0


@dataclass
class _Running:
    target: Target
    row: Row
    process: Any
    pipe: Connection
    folder: Path
    done: int
    total: int
    seen: Counter = field(default_factory=Counter)


def fuzz(part: str, targets: Sequence[Target], scale: float) -> Iterator[Row]:
    """A row for each target, as they end; mutants that failed are kept in a folder that the row names."""
    with tempfile.TemporaryDirectory(prefix="torture-", dir=MEMORY) as work:
        waiting = sorted(targets, key=lambda target: -target.count)
        running: list[_Running] = []
        try:
            while waiting or running:
                while waiting and len(running) < min(len(os.sched_getaffinity(0)), 4):
                    target = waiting.pop(0)
                    total = max(round(target.count * scale), 2)
                    running.append(_start(part, target, Path(work), total))
                ready = wait([each.pipe for each in running], PATIENCE)
                for each in [each for each in running if each.pipe in ready or not ready]:
                    if _heard(each, bool(ready)):
                        continue
                    running.remove(each)
                    if each.done < each.total:  # it ended early; go on behind the mutant that ended it
                        running.append(_restarted(part, each))
                    else:
                        yield each.row
        finally:
            for each in running:
                each.process.kill()


def _start(part: str, target: Target, work: Path, total: int) -> _Running:
    folder = work / re.sub(r"\W+", "-", target.name)
    row = Row(f"{part}: {target.name}", 0)
    return _launched(part, _Running(target, row, None, None, folder, 0, total))  # type: ignore[arg-type]


def _launched(part: str, each: _Running) -> _Running:
    each.pipe, ours = _FORK.Pipe(duplex=False)
    order = (f"{part}/{each.target.name}", each.target, each.folder, each.done, each.total, ours)
    each.process = _FORK.Process(target=_work, args=order, daemon=True)
    each.process.start()
    ours.close()
    return each


def _restarted(part: str, each: _Running) -> _Running:
    each.pipe.close()
    return _launched(part, each)


def _heard(each: _Running, ready: bool) -> bool:
    """Take a message of a worker; False once it has ended."""
    if not ready:
        each.process.kill()
        each.process.join()
        _failed(each, f"a hang: {PATIENCE:g} s without an end")
        return False
    try:
        each.done, problem = each.pipe.recv()
        each.row.tried = each.done
        if problem:
            _failed(each, problem, again=False)
        return True
    except EOFError:
        each.process.join()
        code = each.process.exitcode
        if each.done < each.total:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            slow = f": more than {each.target.seconds:g} s" if code == -signal.SIGPROF else ""
            _failed(each, f"the process ended by {how}{slow}")
        return False


def _failed(each: _Running, problem: str, again: bool = True) -> None:
    """Count a failure and keep its mutant; ``again`` where the worker could not count it itself."""
    if again:
        each.done += 1
        each.row.tried = each.done
    kept = ""
    alike = re.sub(r"0x\w+|\d+", "", problem)[:40]
    each.seen[alike] += 1
    if each.seen[alike] <= ALIKE:
        place = Path(tempfile.gettempdir()) / "imvideoedit-torture" / each.folder.name
        place.mkdir(parents=True, exist_ok=True)
        mutant = place / f"{each.done}-{Path(each.target.file).name}"
        shutil.copy(each.folder / each.target.file if again else _kept(each.folder, each.done), mutant)
        kept = f" ({mutant})"
    each.row.failed.append(problem + kept)


def _kept(folder: Path, number: int) -> Path:
    """Where a worker leaves a mutant that failed."""
    return folder.with_name(f"{folder.name}-{number}")


def _work(name: str, target: Target, folder: Path, done: int, total: int, pipe: Connection) -> None:
    """A worker's body: mutants from number ``done`` on."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # it ends with its parent
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(target.folder, folder, symlinks=True) if target.folder else folder.mkdir(parents=True)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    sys.stdout = sys.stderr = os.fdopen(nowhere, "w")
    os.chdir(folder)
    os.environ |= {name: str(folder.with_name("caches")) for name in ("IMVIDEOEDIT_CACHE", "HF_DATASETS_CACHE")}
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + int(target.gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    corpus, words = list(target.seeds), set()
    lines: set[Any] = set()
    for number in range(done, total):
        rng = random.Random(f"{name}/{number}")
        # The seeds themselves come first: what is good must be accepted.
        mutant = corpus[number] if number < len(target.seeds) else target.mutate(rng.choice(corpus), rng)
        path = folder / target.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mutant)
        signal.setitimer(signal.ITIMER_PROF, target.seconds)
        problem, said = judged(target.check, path, lines if target.guided else None)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if said is not None and number < len(target.seeds) and not problem:
            problem = f"a good seed is refused: {said}"
        new = said is not None and shape_of(said) not in words
        words.add(shape_of(said or ""))
        if target.grows and (new or NEW in lines) and not problem and len(corpus) < CORPUS:
            corpus.append(mutant)
        lines.discard(NEW)
        if problem:
            _kept(folder, number + 1).write_bytes(mutant)
        pipe.send((number + 1, problem))
    pipe.close()
    os._exit(0)
