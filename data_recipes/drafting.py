"""The first stage: scenes with their texts, made shard by shard by a writer, without near-duplicates."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import xxhash
from datasketch import MinHash, MinHashLSH

from data_recipes.plan import Plan, SceneSpec
from data_recipes.rows import Row, digest, rejected
from data_recipes.stages import Component, Stage, shards_of

PERMUTATIONS = 64


class Writer(Component):
    """Turns scenes into rows of texts."""

    @abstractmethod
    def write(self, shard: int, scenes: Sequence[SceneSpec]) -> list[Row]:
        """One row for each task of each scene, rejected ones with their reason."""

    def shards(self) -> int | None:
        """The most shards that it can write; None without a limit."""
        return None


@dataclass(frozen=True)
class Drafts(Stage):
    """The writer's rows, before near-duplicates are rejected."""

    plan: Plan
    writer: Writer
    name: ClassVar = "drafts"
    inputs: ClassVar = {}

    def identity(self, index: int, out: Path) -> Any:
        scenes = [(scene.index, scene.seed, scene.tasks, scene.size) for scene in self.plan.scenes(index)]
        return [self.writer.identity(), scenes]

    def make(self, index: int, *inputs: list[Row]) -> list[Row]:
        return self.writer.write(index, self.plan.scenes(index))

    def estimate(self, rows: int) -> str:
        return self.writer.estimate(rows)


class NearDuplicates:
    """Finds texts that nearly repeat an earlier one of the same task, by MinHash over triples of words.

    Args:
        threshold: Jaccard similarity in (0, 1] from which two texts count as one.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._empty = MinHash(num_perm=PERMUTATIONS, hashfunc=xxhash.xxh32_intdigest)
        self._index: dict[str, MinHashLSH] = {}

    def earlier(self, row: Row) -> str | None:
        """The id of an earlier row that this one repeats; None, and the row is indexed, if there is none."""
        words = f"{row['source_prompt']} {row['instruction']}".lower().split()
        hashed = self._empty.copy()
        hashed.update_batch([" ".join(words[i : i + 3]).encode() for i in range(max(len(words) - 2, 1))])
        if row["task"] not in self._index:
            self._index[row["task"]] = MinHashLSH(self._threshold, PERMUTATIONS)
        index = self._index[row["task"]]
        found = index.query(hashed)
        if found:
            return min(found)
        index.insert(row["id"], hashed, check_duplication=False)
        return None


def reject_near_duplicates(out: Path, count: int, threshold: float) -> tuple[list[str], int]:
    """Write ``count`` shards of ``prompts``: those of ``drafts``, with near-duplicates of earlier rows rejected.

    Sequential, since whether a row is a duplicate depends on all rows before it.

    Returns:
        The keys of the shards, and how many were missing.
    """
    drafts, prompts = shards_of(out, "drafts"), shards_of(out, "prompts")
    keys: list[str] = []
    for index in range(count):
        keys.append(digest("prompts", threshold, drafts.key(index), keys[-1:]))
    missing = {index for index in range(count) if prompts.key(index) != keys[index]}
    duplicates, seen = NearDuplicates(threshold), set[str]()
    for index in range(max(missing, default=-1) + 1):
        rows = (drafts if index in missing else prompts).read(index)
        for place, row in enumerate(rows):
            if row["accepted"]:
                twin = row["id"] if row["id"] in seen else duplicates.earlier(row)
                seen.add(row["id"])
                rows[place] = rejected(row, f"near-duplicate: of {twin}") if twin else row
        if index in missing:
            prompts.write(index, rows, keys[index])
    return keys, len(missing)
