"""Which scenes are made, with which tasks and at which size.

Scene k depends on the seed and k alone, so that more pairs do not change the earlier ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from imvideoedit.common.errors import UserError
from imvideoedit.data.sizes import Size, make_buckets, nearest_bucket
from imvideoedit.world.tasks import TASKS


@dataclass(frozen=True)
class SceneSpec:
    """The plan of one scene: its index, the tasks of its pairs, their size (height, width) and its own seed."""

    index: int
    tasks: tuple[str, ...]
    size: Size
    seed: tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """Scenes with their tasks; in every ten scenes each task occurs equally often.

    Raises:
        UserError: a value is out of its range.
    """

    seed: int
    tasks_per_scene: int  # different tasks of each scene, 1 to 10
    scenes_per_shard: int
    max_area: int  # of the sizes, which are the buckets of training; see make_buckets
    multiple: int
    aspects: Mapping[str, float] = field(default_factory=lambda: {"1:1": 1.0})  # width:height to share of the scenes

    def __post_init__(self) -> None:
        if not 1 <= self.tasks_per_scene <= len(TASKS):
            raise UserError(f"plan.tasks_per_scene is {self.tasks_per_scene}; it must be 1 to {len(TASKS)}")
        if self.scenes_per_shard < 1:
            raise UserError(f"plan.scenes_per_shard is {self.scenes_per_shard}; it must be at least 1")
        self.sizes()

    @property
    def rows_per_shard(self) -> int:
        """Pairs that a shard holds before anything is rejected."""
        return self.scenes_per_shard * self.tasks_per_scene

    def sizes(self) -> tuple[list[Size], list[float]]:
        """The sizes and their shares, which sum to 1."""
        buckets = make_buckets(self.max_area, self.multiple)
        sizes = []
        for aspect, share in self.aspects.items():
            try:
                width, height = (float(side) for side in aspect.split(":"))
                fits = width > 0 and height > 0 and share >= 0
            except ValueError:
                fits = False
            if not fits:
                raise UserError(f"plan.aspects has {aspect!r}: {share}; write shares as '16:9': 0.5")
            # At an equal area, as nearest_bucket takes the larger of equals.
            sizes.append(nearest_bucket((round(1000 * height), round(1000 * width)), buckets))
        total = sum(self.aspects.values())
        if not total > 0:
            raise UserError("plan.aspects has no share above 0; write shares as '16:9': 0.5")
        return sizes, [share / total for share in self.aspects.values()]

    def scenes(self, shard: int) -> list[SceneSpec]:
        """The scenes of a shard."""
        first = shard * self.scenes_per_shard
        return [self.scene(index) for index in range(first, first + self.scenes_per_shard)]

    def scene(self, index: int) -> SceneSpec:
        """Scene ``index``."""
        block, place = divmod(index, len(TASKS))
        order = np.random.default_rng((self.seed, 1, block)).permutation(len(TASKS))
        tasks = tuple(TASKS[order[(place + step) % len(TASKS)]] for step in range(self.tasks_per_scene))
        sizes, shares = self.sizes()
        size = sizes[np.random.default_rng((self.seed, 2, index)).choice(len(sizes), p=shares)]
        return SceneSpec(index, tasks, size, (self.seed, index))


def round_robin(seed: int, index: int, count: int) -> int:
    """Item ``index`` of an endless sequence of rounds, each a permutation of ``count`` items."""
    round_, place = divmod(index, count)
    return int(np.random.default_rng((seed, 3, round_)).permutation(count)[place])


def balance(tasks: Sequence[str], wanted: int) -> list[int]:
    """Indices of ``wanted`` rows, or of all if there are fewer: tasks balanced, the first rows of each."""
    by_task: dict[str, list[int]] = {}
    for row, task in enumerate(tasks):
        by_task.setdefault(task, []).append(row)
    kept: list[int] = []
    for number, rows in enumerate(sorted(by_task.values(), key=lambda rows: (len(rows), rows))):
        # Rarer tasks come first; the others divide what these leave of their share.
        share, extra = divmod(wanted - len(kept), len(by_task) - number)
        kept += rows[: share + (1 if extra else 0)]
    return sorted(kept)
