"""The last stage: a Hugging Face data set with embedded images, split by scene."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_recipes.criteria import CRITERIA
from data_recipes.decisions import TEXTS
from data_recipes.plan import balance
from data_recipes.rows import Row, digest
from data_recipes.shards import MANIFEST
from data_recipes.stages import shards_of
from imvideoedit.common.errors import UserError

SPLITS = ("train", "validation")
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_TEXTS = ("id", "task", "instruction", "source_prompt", "edited_prompt", "scene", "environment")
_FROM_PAIRS = ("id", "task", "scene", "environment", "seed", "source", "target")
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _TEXTS),
        ("seed", pa.int64()),
        ("scores", pa.struct([(name, pa.float32()) for name in CRITERIA])),
        ("source", _IMAGE),
        ("target", _IMAGE),
    ]
)


@dataclass(frozen=True)
class Export:
    """Which pairs are exported, and how.

    Args:
        pairs: wanted; of more the tasks are made as equal as can be, of fewer all are taken.
        validation: share of the scenes, chosen by a hash, whose pairs are for validation.
        rows_per_file: of parquet.
        licence: of the data set, as the hub knows it.
        note: what else the card should say of it.
        push: id of a data set on the hub to upload to, or None; the token comes from the environment.

    Raises:
        UserError: a value is out of its range.
    """

    pairs: int
    validation: float = 0.01
    rows_per_file: int = 500
    licence: str = "other"
    note: str = ""
    push: str | None = None

    def __post_init__(self) -> None:
        if self.pairs < 1 or self.rows_per_file < 1:
            raise UserError(f"pairs is {self.pairs} and rows_per_file {self.rows_per_file}; both must be at least 1")
        if not 0 <= self.validation < 1:
            raise UserError(f"export.validation is {self.validation}; it must be at least 0 and less than 1")


def choose(out: Path, pairs: int) -> tuple[dict[int, set[str]], int]:
    """Which accepted pairs to export, balanced over tasks: shard to ids; and how many are left out."""
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
    """Whole rows, one shard in memory at a time."""
    for index, ids in sorted(chosen.items()):
        scores = {
            row["id"]: json.loads(row["scores"]) for row in shards_of(out, "filter").read(index, ["id", "scores"])
        }
        texts = {row["id"]: row for row in shards_of(out, "review").read(index, ["id", *TEXTS])}
        for pair in shards_of(out, "synthesize").read(index, _FROM_PAIRS):
            if pair["id"] in ids:
                images = {name: {"bytes": pair[name], "path": None} for name in ("source", "target")}
                yield {**pair, **texts[pair["id"]], **images, "scores": scores[pair["id"]] or None}


def split_of(scene: str, validation: float) -> str:
    """The split that all pairs of a scene belong to."""
    return SPLITS[int(digest("split", scene), 16) / 16**16 < validation]


def write_data(rows: Iterator[Row], folder: Path, options: Export) -> dict[str, list[Path]]:
    """Write the rows as numbered parquet files; returns those of each split."""
    folder.mkdir(parents=True)
    files: dict[str, list[Path]] = {split: [] for split in SPLITS}
    with contextlib.ExitStack() as stack:
        writers = {split: _Writer(folder, split, options.rows_per_file, files[split]) for split in SPLITS}
        for writer in writers.values():
            stack.callback(writer.close)
        for row in rows:
            writers[split_of(row["scene"], options.validation)].add(row)
    if not files["train"]:
        raise UserError("no pair is left to train on; ask for more pairs, or lower export.validation")
    return files


class _Writer:
    """Parquet files of one split, some rows each, written a few rows at a time."""

    GROUP = 50  # rows that wait in memory

    def __init__(self, folder: Path, split: str, rows_per_file: int, files: list[Path]) -> None:
        self._folder, self._split, self._limit, self._files = folder, split, rows_per_file, files
        self._rows: list[Row] = []
        self._written = 0
        self._file: pq.ParquetWriter | None = None

    def add(self, row: Row) -> None:
        self._rows.append(row)
        full = self._written + len(self._rows) >= self._limit
        if full or len(self._rows) >= self.GROUP:
            self._flush()
        if full:
            self.close()

    def close(self) -> None:
        self._flush()
        if self._file is not None:
            self._file.close()
        self._file, self._written = None, 0

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._file is None:
            path = self._folder / f"{self._split}-{len(self._files):05d}.parquet"
            self._files.append(path)
            self._file = pq.ParquetWriter(path, SCHEMA.with_metadata({"huggingface": _features()}))
        self._file.write_table(pa.Table.from_pylist(self._rows, SCHEMA))
        self._written += len(self._rows)
        self._rows = []


def _features() -> str:
    """What tells the ``datasets`` library which columns are images."""
    texts: dict[str, Any] = {name: {"dtype": "string", "_type": "Value"} for name in _TEXTS}
    scores = {name: {"dtype": "float32", "_type": "Value"} for name in CRITERIA}
    seed = {"dtype": "int64", "_type": "Value"}
    images = {name: {"_type": "Image"} for name in ("source", "target")}
    return json.dumps({"info": {"features": {**texts, "seed": seed, "scores": scores, **images}}})


def export(out: Path, options: Export, facts: dict[str, Any]) -> dict[str, Any]:
    """Write ``out/export`` unless it holds just this; returns its manifest.

    Args:
        facts: for the card: ``recipe``, ``models`` and ``versions``.

    Raises:
        UserError: no pair was accepted.
    """
    from data_recipes.card import write_card  # draws plots: slow to import

    folder = out / "export"
    reviewed = [entry["made_from"] for entry in shards_of(out, "review").manifest().get("shards", [])]
    settings = [options.pairs, options.validation, options.rows_per_file, options.licence, options.note]
    key = digest(reviewed, settings, facts)
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (FileNotFoundError, ValueError):
        manifest = {}
    if manifest.get("made_from") == key:
        return manifest
    chosen, surplus = choose(out, options.pairs)
    count = sum(map(len, chosen.values()))
    if not count:
        raise UserError(f"no pair of {out} was accepted, so there is nothing to export; its manifests say why")
    with replacing_folder(folder) as temporary:
        files = write_data(exported_rows(out, chosen), temporary / "data", options)
        stats = write_card(temporary, out, files, {"licence": options.licence, "note": options.note, **facts})
        manifest = {"made_from": key, "pairs": count, "surplus": surplus, **stats}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1))
    return manifest


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of ``folder`` when the block succeeds."""
    new, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("new", "old"))
    for leftover in (new, old):  # of a run that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
