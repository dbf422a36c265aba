"""`python -m tests.torture [parts...] [--scale X] [--check]`: attack the parsers and the writers, and print a table.

Exit code 1 where something failed or was lost; with ``--check`` where a part did not find the fault planted in it.
"""

import argparse
import importlib
import sys
import time
import traceback
from collections.abc import Iterator

from tests.torture.table import Row, table

PARTS = {
    "fuzz_json": "tests.torture.fuzz_json",
    "fuzz_tensors": "tests.torture.fuzz_tensors",
    "fuzz_media": "tests.torture.fuzz_media",
    "fuzz_texts": "tests.torture.fuzz_texts",
    "bit_flips": "tests.torture.bit_flips",
    "kills": "tests.torture.kills",
    "disks": "tests.torture.disks",
    "owners": "tests.torture.owners",
    "endurance": "tests.torture.endurance",
    "page_users": "tests.torture.page_users",
}
CHECKED = 0.02  # scale of a part whose planted fault is looked for


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument("--scale", type=float, help="1.0, as usual, is half an hour on two cores; less is quicker")
    parser.add_argument("--check", action="store_true", help="plant a fault in each part, which must report it")
    given = parser.parse_args(arguments)
    for part in set(given.parts) - PARTS.keys():
        parser.error(f"there is no part {part}; choose from {', '.join(PARTS)}")
    scale = given.scale or (CHECKED if given.check else 1.0)
    rows: list[Row] = []
    missed = []
    for part in given.parts or PARTS:
        print(f"{part} ...", flush=True)
        began, own = time.monotonic(), []
        for row in attack(part, scale, given.check):
            own.append(row)
            print(f"  {row.part}: {row.tried} tried, {len(row.failed)} failed, {len(row.lost)} lost", flush=True)
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
        rows += own
        if not any(row.failed or row.lost for row in own):
            missed.append(part)
    print(table(rows))
    if given.check:
        print(f"planted faults not found: {', '.join(missed)}" if missed else "each planted fault was found")
        return int(bool(missed))
    return int(not all(row.good for row in rows))


def attack(part: str, scale: float, planted: bool) -> Iterator[Row]:
    """A part's rows; an error of the part itself counts as a failure, except where its fault is looked for."""
    run = importlib.import_module(PARTS[part]).run
    try:
        yield from run(scale, planted)
    except Exception as error:
        if planted:
            raise
        traceback.print_exc()
        yield Row(part, 1, [f"the part itself ended with {type(error).__name__}: {error}"])


if __name__ == "__main__":
    sys.exit(main())
