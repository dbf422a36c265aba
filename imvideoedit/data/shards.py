"""Tensors under content keys, in safetensors shards: what encoders made once, kept for every later run.

A key is stored once; every entry carries a checksum that is looked at whenever it is read. Shards appear whole or not
at all, and the same keys in the same order make the same files, whoever was interrupted how often.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing

Entry = Mapping[str, Tensor]
SHARD = 256  # entries
STALE = 3600.0  # seconds after which a temporary file belongs to nobody
TOLD_EVERY = 10.0  # seconds between two lines of progress


@dataclass(frozen=True)
class Share:
    """This process's part of work that several do together."""

    rank: int = 0
    world: int = 1
    barrier: Callable[[], None] = lambda: None


class DamagedEntry(UserError):
    """An entry is not what was written."""


class ShardStore:
    """Entries, each a few named tensors, by key.

    Args:
        folder: of the shards, made when first written to.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._checks: dict[str, tuple[Path, str]] = {}
        self._files: dict[Path, Any] = {}
        self.scan()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}  # each process opens its own

    def __len__(self) -> int:
        return len(self._checks)

    def scan(self) -> None:
        """Learn anew which keys there are; shards that cannot be read count as missing."""
        self._checks, self._files = {}, {}
        for path in self._shards():
            try:
                with safe_open(path, framework="pt") as file:
                    checks = json.loads((file.metadata() or {})["checks"])
            except (SafetensorError, OSError, KeyError, ValueError):
                continue
            self._checks |= {key: (path, check) for key, check in checks.items()}

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys that are not here, each once, in their order."""
        return [key for key in dict.fromkeys(keys) if key not in self._checks]

    def read(self, key: str) -> dict[str, Tensor]:
        """The tensors of a key that is here.

        Raises:
            DamagedEntry: they are not what was written.
        """
        path, check = self._checks[key]
        try:
            if path not in self._files:
                self._files[path] = _opened(path)
            file, names = self._files[path]
            entry = {name: file.get_tensor(f"{key}.{name}") for name in names.get(key, ())}
        except (SafetensorError, OSError) as error:
            raise DamagedEntry(f"{path} cannot be read ({error}); run the same command again to mend it") from error
        if checksum(entry) != check:
            raise DamagedEntry(f"{path} is damaged at {key}; run the same command again to encode it anew")
        return entry

    def write(self, entries: Mapping[str, Entry]) -> None:
        """Add entries as one shard, which appears whole or not at all."""
        name = xxhash.xxh3_128_hexdigest(" ".join(entries).encode())[:16]
        checks = {key: checksum(entry) for key, entry in entries.items()}
        tensors = {f"{key}.{n}": tensor.contiguous() for key, entry in entries.items() for n, tensor in entry.items()}
        with replacing(self.folder / f"{name}.safetensors") as temporary:
            # Written here and not by the library, whose errors do not tell a full disk from others.
            temporary.write_bytes(save(tensors, {"checks": json.dumps(checks)}))
        self._checks |= {key: (self.folder / f"{name}.safetensors", check) for key, check in checks.items()}

    def mend(self, share: Share | None = None) -> int:
        """Read all entries; take the damaged ones out, so that they count as missing, and tell how many they were."""
        share = share or Share()
        self._clean(share)
        dropped = 0
        for path in self._shards()[share.rank :: share.world]:
            dropped += self._mend_shard(path)
        share.barrier()
        self.scan()
        return dropped

    def _mend_shard(self, path: Path) -> int:
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

    def _clean(self, share: Share) -> None:
        """Remove what a killed process left half-written."""
        if share.rank == 0 and self.folder.is_dir():
            for path in self.folder.glob(".*.safetensors"):
                if time.time() - path.stat().st_mtime > STALE:
                    path.unlink(missing_ok=True)


def _opened(path: Path) -> tuple[Any, dict[str, list[str]]]:
    """A shard's file, and the names of the tensors under each key."""
    file = safe_open(path, framework="pt")
    names: dict[str, list[str]] = {}
    for full in file.keys():  # noqa: SIM118
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
    encode: Callable[[list[str]], Mapping[str, Entry]],
    what: str,
    share: Share | None = None,
    shard: int = SHARD,
) -> int:
    """Encode what a store lacks of ``keys``, a shard at a time, and tell how many entries that were.

    The missing keys are cut into shards of ``shard`` in their order, and the processes take turns; so whoever
    was killed where, the files become those of an uninterrupted run.

    Args:
        encode: makes the entries of some keys.
        what: the entries' name for the lines of progress.
    """
    share = share or Share()
    store.scan()
    lacking = store.missing(keys)
    share.barrier()  # nobody writes before all have looked
    chunks = [lacking[start : start + shard] for start in range(0, len(lacking), shard)][share.rank :: share.world]
    told, began, done, total = time.monotonic(), time.monotonic(), 0, sum(map(len, chunks))
    for chunk in chunks:
        store.write(encode(chunk))
        done += len(chunk)
        now = time.monotonic()
        if share.rank == 0 and (now - told > TOLD_EVERY or done == total):
            rate = done / max(now - began, 1e-9)
            print(_progress(what, done, total, rate, share.world), flush=True)
            told = now
    share.barrier()
    store.scan()
    return len(lacking)


def _progress(what: str, done: int, total: int, rate: float, world: int) -> str:
    left = (total - done) / rate
    return f"encoded {done:,} of {total:,} {what}, {rate * world:.1f}/s in all, {left / 60:.1f} min left"
