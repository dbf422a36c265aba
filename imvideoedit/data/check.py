"""Read every row of a data set and name the bad ones: ``python -m imvideoedit.data.check PATH``."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.common.terminal import printable, say
from imvideoedit.data.losses import Losses
from imvideoedit.data.media import Shape
from imvideoedit.data.pair_record import SIDES, PairRecord
from imvideoedit.data.records import FORMATS, open_records
from imvideoedit.data.sizes import Size, bucket_length, check_lengths, make_buckets, nearest_bucket


@dataclass
class Tally:
    """Numbers of good rows: all, by task, other media, shape (frames, height, width) and bucket."""

    good: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    media: Counter[str] = field(default_factory=Counter)
    sizes: Counter[Shape] = field(default_factory=Counter)
    buckets: Counter[Shape] = field(default_factory=Counter)
    losses: Losses = field(default_factory=Losses)


def check(
    records: Sequence[PairRecord], buckets: Sequence[Size], tally: Tally, lengths: Sequence[int] = (1,)
) -> Iterator[str]:
    """Decode every row, fill ``tally``, and yield one line for each bad row: where, what, how to fix it.

    Args:
        buckets: sizes; ``lengths``: frames of a bucket.
    """
    first_row: dict[str, int] = {}
    for row in range(len(records)):
        try:
            record = records[row]
            if record.task and first_row.setdefault(record.id, row) != row:
                raise UserError(
                    f"{record.name}: row {first_row[record.id]} has the same id; give each row its own or remove one"
                )
            shape = record.shape()
            length = bucket_length(shape[0], record.is_clip, lengths, record.name)
            for side in SIDES:
                record.read(side, length)
            others = sorted(set(record.media) - set(SIDES))
            for name in others:
                record.read(name, 1)
        except UserError as error:
            yield " ".join(str(error).split())
            continue
        tally.good += 1
        tally.tasks[record.task] += 1
        tally.media.update(others)
        tally.sizes[shape] += 1
        size = nearest_bucket(shape[1:], buckets)
        tally.buckets[length, *size] += 1
        tally.losses.add(record, shape, length, size)


def summary(tally: Tally) -> str:
    """The counts as lines of text; sizes are width x height, of clips with the number of frames."""
    lines = []
    for title, names in (("tasks:", tally.tasks), ("further media:", tally.media)):
        if any(names):
            lines += [title, *(f"  {count} {name or 'without a task'}" for name, count in sorted(names.items()))]
    for title, counts in (("sizes:", tally.sizes), ("buckets:", tally.buckets)):
        lines += [title, *(f"  {count} {_shape(shape)}" for shape, count in counts.most_common())]
    return "\n".join(lines)


def _shape(shape: Shape) -> str:
    frames, height, width = shape
    return f"{width}x{height}" if frames == 1 else f"{width}x{height}, {frames} frames"


def pairs_of(text: str) -> dict[str, str]:
    """``source=a,target=b`` as names and columns.

    Raises:
        UserError: it is not written so.
    """
    pairs = [part.split("=", 1) for part in text.split(",") if part]
    if any(len(pair) < 2 or not all(pair) for pair in pairs):
        raise UserError(f"--columns {text!r} is not written as source=COLUMN,target=COLUMN")
    return {name.strip(): column.strip() for name, column in pairs}


def lengths_of(text: str) -> list[int]:
    """``1,17`` as numbers of frames.

    Raises:
        UserError: it is not written so.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise UserError(f"--frames {text!r} is not written as 1,17")
    lengths = [int(part) for part in parts]
    check_lengths(lengths)
    return lengths


@exit_cleanly
def main(arguments: Sequence[str] | None = None) -> None:
    """The command; exits with 0 if all rows are good, 2 if some are bad or the data set cannot be opened."""
    parser = CommandLine(prog="python -m imvideoedit.data.check", description=__doc__)
    parser.add_argument("path", help="folder with metadata.jsonl, a datasets data set, or data of another trainer")
    parser.add_argument("--format", default="auto", help=f"auto, {', '.join(FORMATS)} (default %(default)s)")
    parser.add_argument("--columns", default="", help="the data's column of each field, as source=a,target=b")
    parser.add_argument("--split", help="data.split: which one, by folders and files (default train, if there are any)")
    parser.add_argument("--frames", default="1", help="lengths of buckets, data.frames, as 1,17 (default %(default)s)")
    parser.add_argument("--max-area", type=int, default=480 * 832, help="most pixels of a bucket (default %(default)s)")
    parser.add_argument("--pixel-multiple", type=int, default=16, help="of bucket sides (default 16; 32 for Wan2.2 5B)")
    options = parser.parse_args(arguments)
    lengths, columns = lengths_of(options.frames), pairs_of(options.columns)
    records, tally = open_records(options.path, options.format, columns, options.split), Tally()
    if not len(records):
        raise UserError(f"{options.path} holds no rows; add pairs")
    print(f"read as {records.form}")
    for line in check(records, make_buckets(options.max_area, options.pixel_multiple), tally, lengths):
        say(f"bad {line}")
    print(printable(summary(tally)))
    for line in tally.losses.lines():
        say(f"warning: {line}")
    print(f"{tally.good} of {len(records)} rows are good")
    if tally.good < len(records):
        sys.exit(2)


if __name__ == "__main__":
    main()
