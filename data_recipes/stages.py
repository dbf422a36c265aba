"""A stage: a function from the shards of earlier stages to its own, done shard by shard, each once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from data_recipes.rows import PAIRS, PROMPTS, REVIEWED, VERDICTS, Row, digest
from data_recipes.shards import Shards

SCHEMAS = {
    "drafts": PROMPTS,
    "prompts": PROMPTS,
    "synthesize": PAIRS,
    "filter": VERDICTS,
    "review": REVIEWED,
}


Inputs = dict[str, tuple[str, ...] | None]


class Stage(Protocol):
    """What makes shards. It is sent to other processes, so it loads what is heavy when it is first used.

    Attributes:
        name: of its folder, one of ``SCHEMAS``.
        inputs: the stages whose shard i its shard i is made from, and which columns of them it reads; None is all.
    """

    name: ClassVar[str]
    inputs: ClassVar[Inputs]

    def identity(self, index: int, out: Path) -> Any:
        """All but the inputs that decides shard ``index``, as JSON; two alike must give the same rows."""

    def make(self, index: int, *inputs: list[Row]) -> list[Row]:
        """The rows of shard ``index`` from those of its inputs."""

    def estimate(self, rows: int) -> str:
        """What ``rows`` rows will cost, in words; empty where nothing is paid."""


@dataclass(frozen=True)
class Work:
    """A stage in its folder."""

    stage: Stage
    out: Path

    @property
    def shards(self) -> Shards:
        """Its own."""
        return shards_of(self.out, self.stage.name)

    def key(self, index: int) -> str:
        """What shard ``index`` is made from; each input must be there."""
        inputs = [shards_of(self.out, name).key(index) for name in self.stage.inputs]
        return digest(self.stage.name, self.stage.identity(index, self.out), index, inputs)

    def __call__(self, index: int) -> int:
        """Make shard ``index`` unless it is there; returns it."""
        key = self.key(index)
        if self.shards.key(index) != key:
            inputs = [shards_of(self.out, name).read(index, columns) for name, columns in self.stage.inputs.items()]
            self.shards.write(index, self.stage.make(index, *inputs), key)
        return index

    def missing(self, count: int) -> tuple[list[str], list[int]]:
        """The keys of ``count`` shards, and which of them are to be made."""
        keys = [self.key(index) for index in range(count)]
        return keys, [index for index, key in enumerate(keys) if self.shards.key(index) != key]


def shards_of(out: Path, name: str) -> Shards:
    """The shards of one stage of a recipe's folder."""
    return Shards(out / name, SCHEMAS[name])


def accepted(rows: Sequence[Row]) -> list[Row]:
    """Those that go on."""
    return [row for row in rows if row["accepted"]]
