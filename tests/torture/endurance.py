"""Memory that stays flat: many edits in one process, and a long video."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tests.processes import command_environment
from tests.processes import run as run_command
from tests.torture.table import Row
from tests.torture.warm import warm

EDITS, FRAMES = 50, 2000
FEWEST_EDITS, FEWEST_FRAMES = 12, 600
BOUND = 40  # megabytes; all frames of the long video take more than twice as much, each planted leak more


def run(scale: float, planted: bool) -> Iterator[Row]:
    """A row for the edits, and one for the frames."""
    warm()
    edits = max(FEWEST_EDITS, round(EDITS * scale))
    frames = FRAMES if scale >= 1 else max(FEWEST_FRAMES, round(FRAMES * scale))
    yield _grown("edits", edits, planted)
    yield _grown("frames", frames, planted)


def _grown(what: str, count: int, planted: bool) -> Row:
    row = Row(f"endurance: {count} {what} in one process", count)
    with tempfile.TemporaryDirectory() as folder:
        leak = ["leak"] if planted else []
        env = command_environment() | {"TMPDIR": folder}
        done = run_command("tests.torture.lasting", what, count, *leak, cwd=Path(folder), env=env)
        sizes = [float(size) for size in re.findall(r"^megabytes (\S+)$", done.stdout, re.M)]
        if done.returncode or len(sizes) < 8:
            row.failed.append(f"it ended with {done.returncode}: {done.stderr.strip()[-300:]}")
            return row
        left = sorted(path.name for path in Path(folder).iterdir() if path.name not in ("source.mp4", "edited.mp4"))
        if left:
            row.failed.append(f"left behind: {', '.join(left[:5])}")
    quarter = len(sizes) // 4
    before, after = median(sizes[quarter : 2 * quarter]), median(sizes[-quarter:])
    row.notes.append(f"{before:.0f} MB after a quarter, {after:.0f} MB at the end")
    if after - before > BOUND:
        row.failed.append(f"memory grew by {after - before:.0f} MB; at most {BOUND} MB are taken as flat")
    return row
