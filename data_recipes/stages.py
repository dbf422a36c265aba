"""A stage maps the shards of earlier stages to its own, each once."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from data_recipes.clip_rows import CLIPS
from data_recipes.rows import PAIRS, PROMPTS, REVIEWED, VERDICTS, Row, digest
from data_recipes.shards import Shards

SCHEMAS = {
    "drafts": PROMPTS,
    "prompts": PROMPTS,
    "synthesize": PAIRS,
    "filter": VERDICTS,
    "review": REVIEWED,
    **dict.fromkeys(("sources", "proposals", "masks", "composites", "edits", "verdicts"), CLIPS),
}


class Component(ABC):
    """Writer, painter or judge of a recipe."""

    @property
    @abstractmethod
    def models(self) -> dict[str, str]:
        """Names of the models it uses, by their part."""

    @abstractmethod
    def identity(self) -> Any:
        """Everything that decides its output, as JSON."""

    def estimate(self, rows: int) -> str:
        """The cost of ``rows`` rows, in words; empty if they are free."""
        return ""


class Stage(ABC):
    """Makes shards. It is pickled to other processes, so it loads large models at their first use."""

    name: ClassVar[str]  # of its folder, one of ``SCHEMAS``
    inputs: ClassVar[dict[str, tuple[str, ...] | None]]  # stages and their columns (None: all) that shard i reads

    @abstractmethod
    def identity(self, index: int, out: Path) -> Any:
        """Everything that decides shard ``index``, except its inputs, as JSON."""

    @abstractmethod
    def make(self, index: int, *inputs: list[Row]) -> list[Row]:
        """The rows of shard ``index`` from those of its inputs."""

    def estimate(self, rows: int) -> str:
        """The cost of ``rows`` rows, in words; empty if they are free."""
        return ""


@dataclass(frozen=True)
class StageRun:
    """A stage in the folder of a recipe."""

    stage: Stage
    out: Path

    def key(self, index: int) -> str:
        """Hash of everything that decides shard ``index``, whose inputs must exist."""
        inputs = [shards_of(self.out, name).key(index) for name in self.stage.inputs]
        return digest(self.stage.name, self.stage.identity(index, self.out), index, inputs)

    def __call__(self, index: int) -> int:
        """Make shard ``index`` unless it is there; returns the index."""
        key, shards = self.key(index), shards_of(self.out, self.stage.name)
        if shards.key(index) != key:
            inputs = [shards_of(self.out, name).read(index, columns) for name, columns in self.stage.inputs.items()]
            shards.write(index, self.stage.make(index, *inputs), key)
        return index

    def missing(self, count: int) -> tuple[list[str], list[int]]:
        """The keys of ``count`` shards, and the indices of those still to make."""
        keys, shards = [self.key(index) for index in range(count)], shards_of(self.out, self.stage.name)
        return keys, [index for index, key in enumerate(keys) if shards.key(index) != key]


def shards_of(out: Path, name: str) -> Shards:
    """The shards of one stage in a recipe's folder."""
    return Shards(out / name, SCHEMAS[name])
