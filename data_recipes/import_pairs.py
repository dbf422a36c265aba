"""``python -m data_recipes.import_pairs --from ID_OR_FOLDER --map source=…,target=…,instruction=… --out DIR``

Streams other people's pairs into DIR. ``python -m data_recipes.build +recipe=imported out=DIR`` continues from there: a
model describes each pair, rules and a judge filter, tasks are balanced.
"""

from itertools import islice
from pathlib import Path

from data_recipes.importing import imported, read_map, stream, to_row
from data_recipes.rows import Row, digest
from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly

ROWS_PER_SHARD = 100


def build_parser() -> CommandLine:
    """The command line."""
    parser = CommandLine(prog="python -m data_recipes.import_pairs", description="Import pairs into a recipe.")
    add = parser.add_argument
    add("--from", dest="origin", required=True, metavar="ID_OR_FOLDER", help="data set on the hub, or folder")
    add("--map", metavar="FIELD=COLUMN,…", help="columns of source, target, instruction; optionally of task, prompts")
    add("--preset", help="columns of a public data set, see data_recipes/presets.yaml")
    add("--out", type=Path, required=True, help="the recipe's folder")
    add("--split", default="train", help="of a data set on the hub (default train)")
    add("--config", help="of a data set on the hub that has several")
    add("--limit", type=int, help="most rows")
    return parser


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    """The command."""
    arguments = build_parser().parse_args(argv)
    if arguments.limit is not None and arguments.limit < 1:
        raise UserError(f"--limit is {arguments.limit}; it must be at least 1")
    mapping = read_map(arguments.map, arguments.preset)
    shards = imported(arguments.out)
    facts = [arguments.origin, arguments.split, arguments.config, {**mapping.columns}, {**mapping.tasks}]
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
    manifest = shards.finish(keys, {"stage": "import", "from": arguments.origin})
    reasons = "".join(f"; {count:,} rejected: {reason}" for reason, count in manifest["rejected"].items())
    print(f"imported {manifest['accepted']:,} of {manifest['rows']:,} pairs{reasons}")
    print(f"next: python -m data_recipes.build +recipe=imported out={arguments.out} pairs={manifest['accepted']}")


def _reject_repeated(row: Row, seen: set[str]) -> Row:
    if row["id"] in seen:
        return row | {"accepted": False, "reason": "duplicate: of an earlier pair"}
    seen.add(row["id"])
    return row


if __name__ == "__main__":
    main()
