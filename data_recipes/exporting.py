"""The last stage: a Hugging Face data set with embedded images, split by scene."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_recipes.plan import balance
from data_recipes.rows import CRITERIA, TEXTS, Row, digest, scores_of
from data_recipes.shards import MANIFEST
from data_recipes.stages import shards_of
from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing_folder
from imvideoedit.common.json_file import read_json

SPLITS = ("train", "validation")
GROUP = 50  # rows of a split that wait in memory
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_STRINGS = ("id", "task", *TEXTS, "scene", "environment")
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _STRINGS),
        ("seed", pa.int64()),
        ("scores", pa.struct([(name, pa.float32()) for name in CRITERIA])),
        ("source", _IMAGE),
        ("target", _IMAGE),
    ]
)


@dataclass(frozen=True)
class Export:
    """Which pairs are exported, and how.

    Raises:
        UserError: a value is out of its range.
    """

    pairs: int  # how many, balanced over tasks; all if there are fewer
    validation: float = 0.01  # share of the scenes, chosen by a hash, whose pairs are for validation
    rows_per_file: int = 500
    licence: str = "other"  # by the hub's name
    note: str = ""  # further text for the card
    push: str | None = None  # id of a data set on the hub to upload to; the token comes from the environment

    def __post_init__(self) -> None:
        if self.pairs < 1 or self.rows_per_file < 1:
            raise UserError(f"pairs is {self.pairs} and rows_per_file {self.rows_per_file}; both must be at least 1")
        if not 0 <= self.validation < 1:
            raise UserError(f"export.validation is {self.validation}; it must be at least 0 and less than 1")


def choose(out: Path, pairs: int) -> tuple[dict[int, set[str]], int]:
    """Which accepted pairs to export, as shard to ids, balanced over tasks; and how many are left out."""
    found: list[tuple[int, str]] = []
    tasks: list[str] = []
    for index in range(shards_of(out, "review").count()):
        task_of = {row["id"]: row["task"] for row in shards_of(out, "synthesize").read(index, ["id", "task"])}
        for row in shards_of(out, "review").read(index, ["id", "accepted"]):
            if row["accepted"]:
                found.append((index, row["id"]))
                tasks.append(task_of[row["id"]])
    kept = balance(tasks, pairs)
    chosen: dict[int, set[str]] = {}
    for place in kept:
        chosen.setdefault(found[place][0], set()).add(found[place][1])
    return chosen, len(found) - len(kept)


def exported_rows(out: Path, chosen: dict[int, set[str]]) -> Iterator[Row]:
    """Rows of ``SCHEMA``, one shard in memory at once."""
    for index, ids in sorted(chosen.items()):
        verdicts = {row["id"]: row for row in shards_of(out, "filter").read(index, ["id", "scores"])}
        texts = {row["id"]: row for row in shards_of(out, "review").read(index, ["id", *TEXTS])}
        columns = ["id", "task", "scene", "environment", "seed", "source", "target"]
        for pair in shards_of(out, "synthesize").read(index, columns):
            if pair["id"] in ids:
                images = {name: {"bytes": pair[name], "path": None} for name in ("source", "target")}
                scores = scores_of(verdicts[pair["id"]]) or None
                yield {**pair, **texts[pair["id"]], **images, "scores": scores}


def split_of(scene: str, validation: float) -> str:
    """The split that all pairs of a scene belong to."""
    return SPLITS[int(digest("split", scene), 16) / 16**16 < validation]


def write_data(rows: Iterator[Row], folder: Path, options: Export) -> dict[str, list[Path]]:
    """Write the rows as numbered parquet files; returns those of each split."""
    folder.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        writers = {split: _SplitWriter(folder / split, options.rows_per_file) for split in SPLITS}
        for writer in writers.values():
            stack.callback(writer.close)
        for row in rows:
            writers[split_of(row["scene"], options.validation)].add(row)
    if not writers["train"].files:
        raise UserError("no pair is left to train on; ask for more pairs, or lower export.validation")
    return {split: writer.files for split, writer in writers.items()}


class _SplitWriter:
    """Writes parquet files of ``limit`` rows each, named ``stem`` and a number, ``GROUP`` rows at once."""

    def __init__(self, stem: Path, limit: int) -> None:
        self.files: list[Path] = []
        self._stem, self._limit = stem, limit
        self._rows: list[Row] = []
        self._written = 0
        self._file: pq.ParquetWriter | None = None

    def add(self, row: Row) -> None:
        self._rows.append(row)
        if self._written + len(self._rows) == self._limit:
            self.close()
        elif len(self._rows) == GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        if self._file is not None:
            self._file.close()
        self._file, self._written = None, 0

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._file is None:
            self.files.append(self._stem.with_name(f"{self._stem.name}-{len(self.files):05d}.parquet"))
            self._file = pq.ParquetWriter(self.files[-1], SCHEMA.with_metadata({"huggingface": _features()}))
        self._file.write_table(pa.Table.from_pylist(self._rows, SCHEMA))
        self._written += len(self._rows)
        self._rows = []


def _features() -> str:
    """The ``datasets`` library's description of the columns, by which it decodes images."""
    features: dict[str, Any] = {name: {"dtype": "string", "_type": "Value"} for name in _STRINGS}
    features["seed"] = {"dtype": "int64", "_type": "Value"}
    features["scores"] = {name: {"dtype": "float32", "_type": "Value"} for name in CRITERIA}
    return json.dumps({"info": {"features": features | {name: {"_type": "Image"} for name in ("source", "target")}}})


def export(out: Path, options: Export, facts: dict[str, Any]) -> dict[str, Any]:
    """Write ``out/export``, with facts for its card, unless it is up to date; returns its manifest.

    Raises:
        UserError: no pair was accepted.
    """
    from data_recipes.card import write_card  # draws plots: slow to import

    folder = out / "export"
    reviewed = [entry["made_from"] for entry in shards_of(out, "review").manifest().get("shards", [])]
    key = digest(reviewed, asdict(options) | {"push": None}, facts)
    manifest: dict[str, Any] = {}
    with contextlib.suppress(UserError):  # none yet, or a damaged one: made anew
        manifest = read_json(folder / MANIFEST)
    if manifest.get("made_from") == key:
        return manifest
    chosen, surplus = choose(out, options.pairs)
    count = sum(map(len, chosen.values()))
    if not count:
        raise UserError(f"no pair of {out} was accepted, so there is nothing to export; see its manifests for reasons")
    with replacing_folder(folder) as temporary:
        files = write_data(exported_rows(out, chosen), temporary / "data", options)
        stats = write_card(temporary, out, files, {"licence": options.licence, "note": options.note, **facts})
        manifest = {"made_from": key, "pairs": count, "surplus": surplus, **stats}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1))
    return manifest


def push(folder: Path, repository: str) -> str:
    """Upload a folder to a private data set on the hub, created if missing; returns its address.

    The token is the one that ``hf auth login`` stores, or the environment's ``HF_TOKEN``.

    Raises:
        UserError: the hub cannot be reached, or denies access.
    """
    import huggingface_hub

    try:
        huggingface_hub.create_repo(repository, repo_type="dataset", private=True, exist_ok=True)
        huggingface_hub.upload_folder(repo_id=repository, repo_type="dataset", folder_path=folder)
    except Exception as error:  # from the hub, its HTTP library or the system
        raise UserError(
            f"cannot push to {repository} ({error}); check export.push, HF_TOKEN and the network. "
            f"The data set itself is in {folder}"
        ) from error
    return f"https://huggingface.co/datasets/{repository}"
