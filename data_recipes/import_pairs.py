"""``python -m data_recipes.import_pairs --from ID_OR_FOLDER --map source=…,target=…,instruction=… --out DIR``

Streams pairs that others made into DIR. ``python -m data_recipes.build +recipe=imported out=DIR`` then does the rest: a
model looks at each pair and writes the descriptions, the rules and the judge filter, tasks are balanced.
"""

from itertools import islice
from pathlib import Path

from data_recipes.importing import imported, read_map, stream, to_row
from data_recipes.rows import Row, digest
from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly

ROWS_PER_SHARD = 100


def build_parser() -> CommandLine:
    """The command line."""
    parser = CommandLine(prog="python -m data_recipes.import_pairs", description="Bring your own pairs.")
    add = parser.add_argument
    add("--from", dest="origin", required=True, metavar="ID_OR_FOLDER", help="data set on the hub, or folder")
    add("--map", metavar="FIELD=COLUMN,…", help="which columns hold source, target, instruction; also task and prompts")
    add("--preset", help="the columns of a public data set, see data_recipes/presets.yaml")
    add("--out", type=Path, required=True, help="the recipe's folder")
    add("--split", default="train", help="of a data set on the hub (default train)")
    add("--config", help="of a data set on the hub that has several")
    add("--limit", type=int, help="rows at most")
    return parser


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    arguments = build_parser().parse_args(argv)
    if arguments.limit is not None and arguments.limit < 1:
        raise UserError(f"--limit is {arguments.limit}; it must be at least 1")
    mapped = read_map(arguments.map, arguments.preset)
    shards = imported(arguments.out)
    facts = [arguments.origin, arguments.split, arguments.config, {**mapped.columns}, {**mapped.tasks}]
    rows = stream(arguments.origin, arguments.split, arguments.config)
    seen: set[str] = set()
    keys: list[str] = []
    while named := list(islice(rows, ROWS_PER_SHARD)):
        if arguments.limit is not None:
            named = named[: arguments.limit - len(keys) * ROWS_PER_SHARD]
        made = [_once(to_row(name, fields, mapped), seen) for name, fields in named]
        keys.append(digest(facts, [row["id"] for row in made]))
        if shards.key(len(keys) - 1) != keys[-1]:
            shards.write(len(keys) - 1, made, keys[-1])
        if arguments.limit is not None and len(keys) * ROWS_PER_SHARD >= arguments.limit:
            break
    if not keys:
        raise UserError(f"{arguments.origin} holds no rows")
    manifest = shards.finish(keys, {"stage": "import", "from": arguments.origin})
    reasons = "".join(f"; {count:,} rejected: {reason}" for reason, count in manifest["rejected"].items())
    print(f"imported {manifest['accepted']:,} of {manifest['rows']:,} pairs{reasons}")
    print(f"go on with python -m data_recipes.build +recipe=imported out={arguments.out} pairs={manifest['accepted']}")


def _once(row: Row, seen: set[str]) -> Row:
    if row["id"] in seen:
        return row | {"accepted": False, "reason": "duplicate: the same pair came before"}
    seen.add(row["id"])
    return row


if __name__ == "__main__":
    main()
