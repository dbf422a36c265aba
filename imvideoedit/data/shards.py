"""A cache of tensors under content keys, in safetensors shards.

A key is stored once, and every entry is read with a check of its checksum. Shards are written atomically, and the same
keys in the same order make the same files, however often the work was interrupted.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors.torch import save
from torch import Tensor

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing
from imvideoedit.common.json_file import parse_json
from imvideoedit.common.tensor_file import TensorFile, first_not_finite

Entry = Mapping[str, Tensor]
SHARD = 256  # entries
STALE = 3600.0  # seconds after which a temporary file belongs to no running process
PROGRESS_EVERY = 10.0  # seconds


@dataclass(frozen=True)
class ProcessInfo:
    """This process among those that share the work; alone by default."""

    rank: int = 0
    world_size: int = 1
    barrier: Callable[[], None] = lambda: None


class DamagedEntry(UserError):
    """An entry is not the one written."""


class ShardStore:
    """Entries, each a few named tensors, by key.

    Args:
        folder: of the shards, created by the first write.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._checks: dict[str, tuple[Path, str]] = {}
        self._files: dict[Path, tuple[TensorFile, dict[str, list[str]]]] = {}
        self.scan()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}  # each process opens its own files

    def __len__(self) -> int:
        return len(self._checks)

    def scan(self) -> None:
        """Read again which keys there are; an unreadable shard counts as missing."""
        self._checks, self._files = {}, {}
        for path in self._shards():
            try:
                checks = parse_json(TensorFile(path).metadata.get("checks", ""), str(path))
            except UserError:
                continue
            if not all(isinstance(check, str) for check in checks.values()):
                continue
            self._checks |= {key: (path, check) for key, check in checks.items()}

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys that are not stored, each once, in their order."""
        return [key for key in dict.fromkeys(keys) if key not in self._checks]

    def read(self, key: str) -> dict[str, Tensor]:
        """The tensors of a stored key.

        Raises:
            DamagedEntry: they are not those written.
        """
        path, check = self._checks[key]
        try:
            if path not in self._files:
                self._files[path] = _opened(path)
            file, names = self._files[path]
            entry = {name: file.tensor(f"{key}.{name}") for name in names.get(key, ())}
        except UserError as error:
            raise DamagedEntry(str(error)) from error
        if checksum(entry) != check:
            raise DamagedEntry(f"{path} is damaged at {key}; run the same command again to repair it")
        return entry

    def write(self, entries: Mapping[str, Entry]) -> None:
        """Add entries as one shard, atomically.

        Raises:
            UserError: a value is NaN or infinite.
        """
        for key, entry in entries.items():
            odd = first_not_finite(entry)
            if odd is not None:
                raise UserError(f"{odd} of {key} came out as NaN or infinite values; encode in bfloat16 or float32")
        name = xxhash.xxh3_128_hexdigest(" ".join(entries).encode())[:16]
        checks = {key: checksum(entry) for key, entry in entries.items()}
        tensors = {f"{key}.{n}": tensor.contiguous() for key, entry in entries.items() for n, tensor in entry.items()}
        with replacing(self.folder / f"{name}.safetensors") as temporary:
            # Not save_file, whose errors do not tell a full disk from others.
            temporary.write_bytes(save(tensors, {"checks": json.dumps(checks)}))
        self._checks |= {key: (self.folder / f"{name}.safetensors", check) for key, check in checks.items()}

    def repair(self, process: ProcessInfo | None = None) -> int:
        """Read all entries and remove damaged ones, which then count as missing; returns how many it found."""
        process = process or ProcessInfo()
        self._clean(process)
        dropped = 0
        for path in self._shards()[process.rank :: process.world_size]:
            dropped += self._repair_shard(path)
        process.barrier()
        self.scan()
        return dropped

    def _repair_shard(self, path: Path) -> int:
        keys = [key for key, (place, _) in self._checks.items() if place == path]
        good: dict[str, Entry] = {}
        for key in keys:
            try:
                good[key] = self.read(key)
            except DamagedEntry as error:
                print(f"{error.args[0].split(';')[0]}; it will be encoded again", flush=True)
        self._files.pop(path, None)
        if keys and len(good) == len(keys):
            return 0
        if good:
            self.write(good)
        path.unlink(missing_ok=True)
        return max(len(keys) - len(good), 1)

    def _shards(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.safetensors") if not path.name.startswith("."))

    def _clean(self, process: ProcessInfo) -> None:
        """Remove unfinished files of killed processes."""
        if process.rank == 0 and self.folder.is_dir():
            for path in self.folder.glob(".*.safetensors"):
                if time.time() - path.stat().st_mtime > STALE:
                    path.unlink(missing_ok=True)


def _opened(path: Path) -> tuple[TensorFile, dict[str, list[str]]]:
    """A shard's file, and the names of the tensors under each key."""
    file = TensorFile(path, "shard", "run the same command again to repair it")
    names: dict[str, list[str]] = {}
    for full in file.names:
        key, _, name = full.partition(".")
        names.setdefault(key, []).append(name)
    return file, names


def checksum(entry: Entry) -> str:
    """16 hex digits over an entry's names, types, shapes and bytes."""
    digest = xxhash.xxh3_64()
    for name, tensor in sorted(entry.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fill(
    store: ShardStore,
    keys: Sequence[str],
    encode: Callable[[Any], Mapping[str, Entry]],
    what: str,
    process: ProcessInfo | None = None,
    shard: int = SHARD,
    prepare: Callable[[list[list[str]]], Iterable[Any]] = iter,
) -> int:
    """Encode the ``keys`` that a store lacks, one shard after the other; returns how many there were.

    The missing keys are cut into shards of ``shard`` in their order, and the processes take turns; so after any kills
    the files become those of an uninterrupted run.

    Args:
        encode: makes the entries of a shard from its keys, or from what ``prepare`` made of them.
        what: the entries' name in lines of progress.
        prepare: makes of the keys of all shards, one after the other and perhaps ahead, what ``encode`` takes.
    """
    process = process or ProcessInfo()
    store.scan()
    lacking = store.missing(keys)
    process.barrier()  # no process writes before all have scanned
    chunks = [lacking[start : start + shard] for start in range(0, len(lacking), shard)]
    chunks = chunks[process.rank :: process.world_size]
    printed, began, done, total = time.monotonic(), time.monotonic(), 0, sum(map(len, chunks))
    for chunk, ready in zip(chunks, prepare(chunks), strict=True):
        store.write(encode(ready))
        done += len(chunk)
        now = time.monotonic()
        if process.rank == 0 and (now - printed > PROGRESS_EVERY or done == total):
            rate = done / max(now - began, 1e-9)
            print(_progress(what, done, total, rate, process.world_size), flush=True)
            printed = now
    process.barrier()
    store.scan()
    return len(lacking)


def _progress(what: str, done: int, total: int, rate: float, world: int) -> str:
    left = (total - done) / rate
    return f"encoded {done:,} of {total:,} {what}, {rate * world:.1f}/s in all, {left / 60:.1f} min left"
