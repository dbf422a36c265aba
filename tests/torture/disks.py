"""A disk that is full, and a folder that cannot be written: one line, code 2, and nothing that was done is lost.

The full disk is a small tmpfs and the folder one that is mounted for reading alone, which only root can make; elsewhere
both are noted as not tried.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes import command_environment
from tests.processes import run as run_command
from tests.torture.table import Row
from tests.torture.victims import VICTIMS, Victim
from tests.torture.warm import warm
from tests.torture.whole import broken, is_temporary
from tests.torture.writers import WRITERS

KB = 1024
LARGE = 1024 * KB * KB  # bytes of a disk that each command finds room on, with its checkpoints
KEPT = (".mp4", ".parquet", "scores.json")  # endings of files that no command may remove


def run(scale: float, planted: bool) -> Iterator[Row]:
    """A row for each writer and each command, on a full disk and in a folder that cannot be written."""
    if os.geteuid():
        yield Row("disks", 0, notes=["not tried: only root can mount a small disk"])
        return
    warm()
    for name in WRITERS:
        yield _writer(name, planted)
        if planted:
            return
    for victim in VICTIMS:
        row = Row(f"disks: {victim.name}", 0)
        used = _used(victim)
        for share in _shares(scale):
            _command(row, victim, int(share * used))
        yield row


def _shares(scale: float) -> list[float]:
    """How much of what a command writes there is room for; 0 for a folder that cannot be written."""
    count = max(1, round(3 * scale))
    return [0.0, *((place + 0.5) / count for place in range(count))]


@contextmanager
def disk(folder: Path, size: int) -> Iterator[Path]:
    """A disk of so many bytes."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def read_only(folder: Path) -> None:
    """Have a disk take nothing more; a folder's permissions would not stop root."""
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)


def _writer(name: str, planted: bool) -> Row:
    """One writer: on a disk with room for its first file but not for its second, and on one for reading alone."""
    row = Row(f"disks: {name}", 0)
    with tempfile.TemporaryDirectory() as parent:
        size = _size(name, Path(parent))
        for kind, room in (("full", int(size * 1.5) + 8 * KB), ("read-only", 4 * size + 64 * KB)):
            with disk(Path(parent) / kind, room) as folder:
                assert _write(name, folder, 0).returncode == 0
                before = _content(folder)
                if kind == "read-only":
                    read_only(folder)
                else:
                    (folder / "ballast").write_bytes(os.urandom(max(0, _free(folder) - size // 2)))
                done = _write(name, folder, 1, planted)
                row.tried += 1
                row.failed += [f"{kind}: {problem}" for problem in _problems(done.returncode, done.stderr, folder)]
                after = _content(folder)
                row.lost += [f"{kind}: {path}" for path in before if before[path] != after.get(path)]
    return row


def _size(name: str, parent: Path) -> int:
    """Bytes of the disk that a writer's file takes."""
    done = _write(name, parent / "sized", 0)
    assert done.returncode == 0, f"{name}: {done.stderr[-500:]}"
    return sum(path.stat().st_blocks * 512 for path in (parent / "sized").rglob("*") if path.is_file())


def _write(name: str, folder: Path, number: int, planted: bool = False) -> subprocess.CompletedProcess[str]:
    """Call a writer in a process of its own, as a command would; a planted fault writes under a final name at once."""
    return run_command("tests.torture.writers", name, folder, number, *["planted"] * planted)


def _problems(code: int | None, said: str, folder: Path) -> Iterator[str]:
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    if "Traceback" in said:
        yield f"a traceback: {said.strip().splitlines()[-1][:200]}"
    elif code != 2 or len(errors) != 1:
        yield f"code {code} and {len(errors)} lines of error: {said.strip()[-300:]!r}"
    yield from broken(folder)


def _content(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and not is_temporary(path, folder))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _begun(victim: Victim, parent: Path) -> subprocess.CompletedProcess[str]:
    env = command_environment() | {"IMVIDEOEDIT_CACHE": f"{parent}/cache"}
    return run_command(victim.module, *victim.arguments, cwd=parent, env=env)


def _used(victim: Victim) -> int:
    """Bytes of a disk that a command has taken when it ends."""
    with tempfile.TemporaryDirectory() as parent, disk(Path(parent) / "out", LARGE) as out:
        victim.prepare(Path(parent))
        done = _begun(victim, Path(parent))
        assert done.returncode == 0, f"{victim.name}: {done.stderr[-500:]}"
        return LARGE - _free(out)


def _command(row: Row, victim: Victim, room: int) -> None:
    """A command whose disk has so much room, or takes nothing where that is 0; then it has room, and must go on."""
    what = f"room for {room // KB} KB" if room else "read-only"
    with tempfile.TemporaryDirectory() as parent, disk(Path(parent) / "out", LARGE) as out:
        victim.prepare(Path(parent))
        ballast = out / ".ballast"
        if room:
            ballast.write_bytes(bytes(_free(out) - room))
        else:
            read_only(out)
        done = _begun(victim, Path(parent))
        row.tried += 1
        code, said = done.returncode, done.stderr
        if victim.name == "batch of edits" and code == 1:  # each edit failed by itself
            code, said = 2, "\n".join(["error: the edits that failed", said])
        if not room or code:
            row.failed += [f"{what}: {problem}" for problem in _problems(code, said, out)]
        else:
            row.notes.append(f"{what} was enough")
        before = _content(out)
        if not room:
            subprocess.run(["mount", "-o", "remount,rw", out], check=True)
        ballast.unlink(missing_ok=True)
        done = _begun(victim, Path(parent))
        if done.returncode:
            row.failed.append(f"{what}: with room again it ends with {done.returncode}: {done.stderr.strip()[-300:]}")
        kept = {str(path.relative_to(out)) for pattern in victim.keeps for path in out.glob(pattern)}
        after = _content(out)
        row.lost += [f"{what}: {name}" for name in kept & before.keys() if before[name] != after.get(name)]
        row.lost += [f"{what}: {name}" for name in before.keys() - after.keys() if name.endswith(KEPT)]
