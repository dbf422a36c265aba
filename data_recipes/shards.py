"""Rows on disk: numbered parquet files, complete or absent, each with a key of what it was made from."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_recipes.rows import Row
from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing
from imvideoedit.common.json_file import read_json

_KEY = b"made_from"
MANIFEST = "manifest.json"
_FIX = "remove it and run the stage again"


def read_manifest(path: Path) -> dict[str, Any]:
    """Counts and keys of a finished stage.

    Raises:
        UserError: the file is missing, damaged, or no manifest.
    """
    manifest = read_json(path, fix=_FIX)
    shards = manifest.get("shards")
    counts = {"rows": int, "accepted": int, "rejected": dict}
    for part in (manifest, *(shards if isinstance(shards, list) else [None])):
        if not isinstance(part, dict) or any(not isinstance(part.get(name), kind) for name, kind in counts.items()):
            raise UserError(f"{path} does not count a stage's rows; {_FIX}")
    if not all(isinstance(shard.get("made_from"), str) for shard in manifest["shards"]):
        raise UserError(f"{path} does not name what its shards were made from; {_FIX}")
    return manifest


class Shards:
    """The files of one stage.

    A file's metadata hold a key: a hash of everything that decides its rows. By it a stage that was interrupted, or is
    run again, makes only the missing shards.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.folder, self.schema = folder, schema

    def path(self, index: int) -> Path:
        """The file of shard ``index``."""
        return self.folder / f"part-{index:05d}.parquet"

    def key(self, index: int) -> str | None:
        """The key of a shard; None if it is absent or damaged."""
        try:
            return (pq.read_schema(self.path(index)).metadata or {})[_KEY].decode()
        except (FileNotFoundError, pa.ArrowInvalid, KeyError, OSError):
            return None

    def write(self, index: int, rows: Sequence[Row], key: str) -> None:
        """Write a shard's file, which appears complete."""
        table = pa.Table.from_pylist(list(rows), self.schema).replace_schema_metadata({_KEY: key.encode()})
        with replacing(self.path(index)) as path:
            pq.write_table(table, path, compression="zstd")

    def read(self, index: int, columns: Sequence[str] | None = None) -> list[Row]:
        """The rows of a shard.

        Raises:
            UserError: it cannot be read, or lacks a column; names the file.
        """
        wanted = list(columns or self.schema.names)
        try:
            # Not read_table, which takes a=b in a path for a column.
            return pq.ParquetFile(self.path(index)).read(columns=wanted).select(wanted).to_pylist()
        except FileNotFoundError as error:
            raise UserError(f"{self.path(index)} is missing; run the stage {self.folder.name} again") from error
        except (pa.ArrowException, OSError, KeyError) as error:
            raise UserError(
                f"{self.path(index)} cannot be read ({error}); remove it and run the stage {self.folder.name} again"
            ) from error

    def count(self) -> int:
        """How many shards the finished stage has; 0 if it was never finished."""
        return len(self.manifest().get("shards", []))

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """All rows of the finished stage in order, one shard in memory at a time."""
        for index in range(self.count()):
            yield from self.read(index, columns)

    def manifest(self) -> dict[str, Any]:
        """Counts and keys of the finished stage; empty before.

        Raises:
            UserError: the file is damaged.
        """
        path = self.folder / MANIFEST
        return read_manifest(path) if path.exists() else {}

    def finish(self, keys: Sequence[str], facts: dict[str, Any]) -> dict[str, Any]:
        """Write the manifest of the shards with these keys, in order, and return it; unchanged shards are not read."""
        known = {entry["made_from"]: entry for entry in self.manifest().get("shards", [])}
        entries = [known.get(key) or self._entry(index, key) for index, key in enumerate(keys)]
        reasons: Counter[str] = Counter()
        for entry in entries:
            reasons.update(entry["rejected"])
        manifest = facts | {
            "rows": sum(entry["rows"] for entry in entries),
            "accepted": sum(entry["accepted"] for entry in entries),
            "rejected": dict(reasons.most_common()),
            "shards": entries,
        }
        with replacing(self.folder / MANIFEST) as path:
            path.write_text(json.dumps(manifest, indent=1))
        return manifest

    def _entry(self, index: int, key: str) -> dict[str, Any]:
        rows = self.read(index, ["accepted", "reason"])
        reasons = Counter(row["reason"].split(":")[0] for row in rows if not row["accepted"])
        return {
            "file": self.path(index).name,
            "made_from": key,
            "rows": len(rows),
            "accepted": len(rows) - sum(reasons.values()),
            "rejected": dict(sorted(reasons.items())),
        }
