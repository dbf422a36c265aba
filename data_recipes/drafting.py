"""The first stage: scenes and their texts, made shard by shard by a writer, and rid of near-duplicates."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import xxhash
from datasketch import MinHash, MinHashLSH

from data_recipes.plan import Plan, SceneSpec
from data_recipes.rows import Row, digest, rejected
from data_recipes.stages import Inputs, shards_of

PERMUTATIONS = 64


class Writer(Protocol):
    """What turns scenes into rows of texts."""

    def identity(self) -> Any:
        """All that decides its texts, as JSON."""

    def write(self, shard: int, scenes: Sequence[SceneSpec]) -> list[Row]:
        """One row for each task of each scene, rejected ones with their reason."""

    def estimate(self, rows: int) -> str:
        """What ``rows`` rows will cost, in words; empty where nothing is paid."""

    def shards(self) -> int | None:
        """How many shards there are at most; None without an end."""


@dataclass(frozen=True)
class Drafts:
    """The stage that writes."""

    plan: Plan
    writer: Writer
    name: ClassVar[str] = "drafts"
    inputs: ClassVar[Inputs] = {}

    def identity(self, index: int, out: Path) -> Any:
        """The writer's and the shard's scenes."""
        scenes = [(scene.index, scene.seed, scene.tasks, scene.size) for scene in self.plan.scenes(index)]
        return [self.writer.identity(), scenes]

    def make(self, index: int, *inputs: list[Row]) -> list[Row]:
        """The writer's rows."""
        return self.writer.write(index, self.plan.scenes(index))

    def estimate(self, rows: int) -> str:
        """The writer's."""
        return self.writer.estimate(rows)


class Unlike:
    """Tells whether a text is nearly one that was seen with the same task, by MinHash over triples of words.

    Args:
        threshold: Jaccard similarity in (0, 1] from which two texts count as one.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._blank = MinHash(num_perm=PERMUTATIONS, hashfunc=xxhash.xxh32_intdigest)
        self._seen: dict[str, MinHashLSH] = {}

    def earlier(self, row: Row) -> str | None:
        """The id of an accepted row that this one repeats; None if there is none, and then it is remembered."""
        words = f"{row['source_prompt']} {row['instruction']}".lower().split()
        hashed = self._blank.copy()
        hashed.update_batch([" ".join(words[i : i + 3]).encode() for i in range(max(len(words) - 2, 1))])
        if row["task"] not in self._seen:
            self._seen[row["task"]] = MinHashLSH(self._threshold, PERMUTATIONS)
        seen = self._seen[row["task"]]
        found = seen.query(hashed)
        if found:
            return min(found)
        seen.insert(row["id"], hashed, check_duplication=False)
        return None


def keep_unlike(out: Path, count: int, threshold: float) -> Iterator[int]:
    """Write the shards of ``prompts``: those of ``drafts`` with near-duplicates of earlier rows rejected.

    Sequential, since whether a row is a duplicate depends on all before it. Yields each shard's number.
    """
    drafts, prompts = shards_of(out, "drafts"), shards_of(out, "prompts")
    keys = unlike_keys(out, count, threshold)
    missing = [index for index in range(count) if prompts.key(index) != keys[index]]
    if not missing:
        return
    unlike = Unlike(threshold)
    seen: set[str] = set()
    for index in range(missing[-1] + 1):
        done = index not in missing
        rows = []
        for row in (prompts if done else drafts).read(index):
            if row["accepted"]:
                twin = row["id"] if row["id"] in seen else unlike.earlier(row)
                seen.add(row["id"])
                row = rejected(row, f"near-duplicate: of {twin}") if twin else row
            rows.append(row)
        if not done:
            prompts.write(index, rows, keys[index])
            yield index


def unlike_keys(out: Path, count: int, threshold: float) -> list[str]:
    """The keys of the shards of ``prompts``: each depends on all drafts up to its own."""
    drafts = shards_of(out, "drafts")
    keys: list[str] = []
    for index in range(count):
        keys.append(digest("prompts", threshold, drafts.key(index), keys[-1:]))
    return keys
