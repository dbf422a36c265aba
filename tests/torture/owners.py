"""Two processes on one folder, for each kind of folder that is written over time."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.processes import Command, command_environment
from tests.torture.meter import Meter
from tests.torture.table import Row
from tests.torture.victims import VICTIMS, Victim
from tests.torture.warm import warm
from tests.torture.whole import broken, temporaries

REFUSED = "in use by"
SHARED = ("edit", "batch of edits")  # both write, and both rightly
ENCODED = ("training on nano", "pre-encoding")  # whose runs may share a cache


def run(scale: float, planted: bool) -> Iterator[Row]:
    """A row for each command: the same twice in one folder, and for caches two runs that share one."""
    warm()
    victims = [victim for victim in VICTIMS if not planted or victim.name == "recipe"]
    with tempfile.TemporaryDirectory() as name:
        for victim in victims:
            folder = Path(tempfile.mkdtemp(dir=name))
            victim.prepare(folder)
            result = _alone(victim, folder)
            yield _twice(victim, folder, result, planted)
            if victim.name in ENCODED and not planted:
                yield _one_cache(victim, folder)


def _alone(victim: Victim, folder: Path) -> object:
    process = _begun(victim, folder)
    _, said = process.communicate()
    assert process.returncode == 0, said
    result = victim.result(folder / "out")
    shutil.rmtree(folder / "out")
    if victim.name == "edit":
        (folder / "out").mkdir()
    return result


def _begun(victim: Victim, folder: Path, more: tuple[str, ...] = (), unlocked: bool = False) -> Command:
    environment = command_environment() | {"IMVIDEOEDIT_CACHE": str(folder / "cache")}
    before = Unlocked() if unlocked else Meter(str(folder / "out"), str(folder / "report"), shard=victim.shard)
    return Command(victim.module, *victim.arguments, *more, env=environment, cwd=folder, before=before)


class Unlocked:
    """A planted fault: no folder has an owner, and the process ends as if it had been refused nothing."""

    def __call__(self) -> None:
        import fcntl

        fcntl.lockf = lambda *_: None  # type: ignore[assignment]


def _twice(victim: Victim, folder: Path, result: object, planted: bool) -> Row:
    row = Row(f"owners: {victim.name}, twice", 2)
    processes = [_begun(victim, folder, unlocked=planted) for _ in range(2)]
    said = [process.communicate()[1] for process in processes]
    codes = [process.returncode for process in processes]
    for code, text in zip(codes, said, strict=True):
        lines = [line for line in text.splitlines() if line.startswith("error: ")]
        if "Traceback" in text or (code and (code != 2 or len(lines) != 1 or REFUSED not in lines[0])):
            row.failed.append(f"code {code}: {text.strip()[-300:]!r}")
    if victim.name not in SHARED and sorted(code or 0 for code in codes) != [0, 2]:
        row.failed.append(f"not one of the two was refused: codes {codes}")
    if all(codes):
        row.lost.append(f"neither did the work: codes {codes}")
    else:
        row.failed += _wrong(victim, folder, result)
    return row


def _wrong(victim: Victim, folder: Path, result: object) -> Iterator[str]:
    yield from broken(folder / "out")
    left = [name for name in temporaries(folder / "out") if not name.startswith(".hydra")]
    if left:
        yield f"left behind: {', '.join(left)}"
    if victim.result(folder / "out") != result:
        yield "another result than that of one process alone"


def _one_cache(victim: Victim, folder: Path) -> Row:
    """Two runs into folders of their own, with one new cache: one waits for the other."""
    row = Row(f"owners: {victim.name}, one cache", 2)
    shutil.rmtree(folder / "out")
    places = [(f"run_dir={name}", "data.cache=cache_of_both") for name in ("one", "two")]
    processes = [_begun(victim, folder, place) for place in places]
    for process in processes:
        text = process.communicate()[1]
        if process.returncode:
            row.failed.append(f"code {process.returncode}: {text.strip()[-300:]!r}")
    row.failed += list(broken(folder / "cache_of_both"))
    row.failed += [f"left behind: {name}" for name in temporaries(folder / "cache_of_both")]
    adapters = {(folder / name / "adapter.safetensors").read_bytes()[-2000:] for name in ("one", "two")}
    if len(adapters) != 1:
        row.failed.append("two runs with the same settings made different adapters")
    return row
