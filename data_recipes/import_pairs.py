"""``python -m data_recipes.import_pairs --from ID_OR_FOLDER --map source=…,target=…,instruction=… --out DIR``

Streams other people's pairs into DIR. ``python -m data_recipes.build +recipe=imported out=DIR`` continues from there: a
model describes each pair, rules and a judge filter, tasks are balanced.
"""

import argparse
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_recipes.column_maps import ColumnMap, cells, read_map, task_of, text_of
from data_recipes.foreign_rows import stream
from data_recipes.import_clips import import_clips
from data_recipes.rows import TEXTS, Row, digest, rejected
from data_recipes.shards import Shards
from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.common.owner import owned
from imvideoedit.common.terminal import say
from imvideoedit.data.fields import inside
from imvideoedit.data.splits import TRAIN
from imvideoedit.video.images import image_size

ROWS_PER_SHARD = 100
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "task", *TEXTS)),
        ("source", pa.binary()),
        ("target", pa.binary()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("accepted", pa.bool_()),
        ("reason", pa.string()),
    ]
)


def to_row(name: str, fields: Mapping[str, Any], mapping: ColumnMap) -> Row:
    """A row of ``SCHEMA``, rejected if its images or its instruction are missing.

    Raises:
        UserError: the data set lacks a required column.
    """
    found = cells(name, fields, mapping)
    texts = {field: text_of(found.get(field)) for field in TEXTS}
    row: Row = {"id": digest("import", name), "source": b"", "target": b"", "height": 0, "width": 0}
    row |= texts | {"task": task_of(text_of(found.get("task")), mapping.tasks), "accepted": True, "reason": ""}
    try:
        images = {field: _image(found[field], fields.get("")) for field in ("source", "target")}
        sizes = [image_size(data, field) for field, data in images.items()]
    except (UserError, OSError, ValueError) as error:
        return rejected(row, f"image: {error}")
    if not texts["instruction"]:
        return rejected(row, f"instruction: none in {name}")
    key = digest(*(digest(data.hex()) for data in images.values()), texts["instruction"])
    return row | images | {"id": key, "height": sizes[0][0], "width": sizes[0][1]}


def _image(value: Any, folder: Path | None) -> bytes:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return value
    if not isinstance(value, str) or not value or folder is None:
        raise ValueError("there is none; embed it, or name a file relative to the .jsonl")
    return inside(folder, value).read_bytes()


def imported(out: Path) -> Shards:
    """The shards of imported pairs in a recipe's folder."""
    return Shards(out / "import", SCHEMA)


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = CommandLine(prog="python -m data_recipes.import_pairs", description="Import pairs into a recipe.")
    add = parser.add_argument
    add("--from", dest="origin", required=True, metavar="ID_OR_FOLDER", help="data set on the hub, or folder")
    add(
        "--map",
        metavar="FIELD=COLUMN,…",
        help="columns of source, target, instruction; optionally of task, prompts",
    )
    add("--preset", help="columns of a public data set, see data_recipes/presets.yaml")
    add("--out", type=Path, required=True, help="the recipe's folder")
    add("--split", help="of parquet files, by their names and folders, or of a data set on the hub (default train)")
    add("--config", help="of a data set on the hub that has several")
    add("--limit", type=int, help="most rows")
    add("--clips", action="store_true", help="the pairs are videos; then: python -m data_recipes.build_clips")
    arguments = parser.parse_args(argv)
    if arguments.limit is not None and arguments.limit < 1:
        raise UserError(f"--limit is {arguments.limit}; it must be at least 1")
    mapping = read_map(arguments.map, arguments.preset)
    with owned(arguments.out, "an import"):
        manifest = (import_clips if arguments.clips else _import)(arguments, mapping)
    reasons = "".join(f"; {count:,} rejected: {reason}" for reason, count in manifest["rejected"].items())
    say(f"imported {manifest['accepted']:,} of {manifest['rows']:,} pairs{reasons}")
    build = "build_clips +recipe=ffp_imported" if arguments.clips else "build +recipe=imported"
    say(f"next: python -m data_recipes.{build} out={arguments.out} pairs={manifest['accepted']}")


def _import(arguments: argparse.Namespace, mapping: ColumnMap) -> dict[str, Any]:
    """Write the shards, those that are not there as they are to be; returns their manifest."""
    shards = imported(arguments.out)
    facts = [arguments.origin, arguments.split or TRAIN, arguments.config, {**mapping.columns}, {**mapping.tasks}]
    rows = islice(stream(arguments.origin, arguments.split, arguments.config), arguments.limit)
    seen: set[str] = set()
    keys: list[str] = []
    while named := list(islice(rows, ROWS_PER_SHARD)):
        made = [_reject_repeated(to_row(name, fields, mapping), seen) for name, fields in named]
        keys.append(digest(facts, [row["id"] for row in made]))
        if shards.key(len(keys) - 1) != keys[-1]:
            shards.write(len(keys) - 1, made, keys[-1])
    if not keys:
        raise UserError(f"{arguments.origin} holds no rows")
    return shards.finish(keys, {"stage": "import", "from": arguments.origin})


def _reject_repeated(row: Row, seen: set[str]) -> Row:
    if row["id"] in seen:
        return row | {"accepted": False, "reason": "duplicate: of an earlier pair"}
    seen.add(row["id"])
    return row


if __name__ == "__main__":
    main()
