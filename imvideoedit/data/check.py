"""Read every row of a data set and name the bad ones: ``python -m imvideoedit.data.check PATH``."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.data.records import PairRecord, open_records
from imvideoedit.data.sizes import Size, make_buckets, nearest_bucket


@dataclass
class Tally:
    """Numbers of good rows: all, by task, size (height, width) and bucket."""

    good: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    sizes: Counter[Size] = field(default_factory=Counter)
    buckets: Counter[Size] = field(default_factory=Counter)


def check(records: Sequence[PairRecord], buckets: Sequence[Size], tally: Tally) -> Iterator[str]:
    """Decode every row, fill ``tally``, and yield one line for each bad row: where, what, how to fix it."""
    first_row: dict[str, int] = {}
    for row in range(len(records)):
        try:
            record = records[row]
            if first_row.setdefault(record.id, row) != row:
                raise UserError(
                    f"{record.name}: row {first_row[record.id]} has the same id; give each row its own or remove one"
                )
            height, width = record.load()[0].shape[:2]
        except UserError as error:
            yield " ".join(str(error).split())
            continue
        tally.good += 1
        tally.tasks[record.task] += 1
        tally.sizes[height, width] += 1
        tally.buckets[nearest_bucket((height, width), buckets)] += 1


def summary(tally: Tally) -> str:
    """The counts as lines of text; sizes are width x height."""
    lines = ["tasks:", *(f"  {count} {task}" for task, count in sorted(tally.tasks.items()))]
    for title, counts in (("sizes:", tally.sizes), ("buckets:", tally.buckets)):
        lines += [title, *(f"  {count} {width}x{height}" for (height, width), count in counts.most_common())]
    return "\n".join(lines)


@exit_cleanly
def main(arguments: Sequence[str] | None = None) -> None:
    """The command; exits with 0 if all rows are good, 2 if some are bad or the data set cannot be opened."""
    parser = CommandLine(prog="python -m imvideoedit.data.check", description=__doc__)
    parser.add_argument("path", help="folder with metadata.jsonl, or a datasets data set")
    parser.add_argument("--max-area", type=int, default=480 * 832, help="most pixels of a bucket (default %(default)s)")
    parser.add_argument("--pixel-multiple", type=int, default=16, help="bucket sides are multiples of it (default 16)")
    options = parser.parse_args(arguments)
    records, tally = open_records(options.path), Tally()
    if not len(records):
        raise UserError(f"{options.path} holds no rows; add pairs")
    for line in check(records, make_buckets(options.max_area, options.pixel_multiple), tally):
        print(f"bad {line}", flush=True)
    print(summary(tally))
    print(f"{tally.good} of {len(records)} rows are good")
    if tally.good < len(records):
        sys.exit(2)


if __name__ == "__main__":
    main()
