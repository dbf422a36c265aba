"""The first stage of the clip recipe: source clips of one length, at sizes of training.

Shapes: F frames, H W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from data_recipes.clip_rows import Unreadable, clip_row, read_clip, written
from data_recipes.models import parallel_map
from data_recipes.rows import Row, digest, rejected
from data_recipes.stages import Stage
from imvideoedit.common.errors import UserError
from imvideoedit.common.files import content_hash
from imvideoedit.data.sizes import fit, make_buckets, nearest_bucket
from imvideoedit.video.kinds import VIDEOS


def each(make: Callable[[Row], Row], rows: Sequence[Row], parallel: int = 1) -> list[Row]:
    """Rows made of the accepted ones; where a file cannot be read, that row is rejected alone."""

    def guarded(row: Row) -> Row:
        try:
            return make(row)
        except Unreadable as error:
            return rejected(row, f"unreadable: {error}")

    return parallel_map(guarded, [row for row in rows if row["accepted"]], parallel)


@dataclass(frozen=True)
class Sources(Stage):
    """The first frames of each video of a folder, scaled and cropped to a size of training.

    Raises:
        UserError: the folder holds no video, or a value is out of its range.
    """

    out: Path
    folder: Path
    frames: int = 81
    max_area: int = 480 * 832
    multiple: int = 16
    per_shard: int = 10
    name: ClassVar = "sources"
    inputs: ClassVar = {}

    def __post_init__(self) -> None:
        if self.frames < 5 or self.frames % 4 != 1 or self.per_shard < 1:
            raise UserError(
                f"sources.frames is {self.frames} and per_shard {self.per_shard}; frames are 4k + 1 and at least 5, "
                "and a shard holds at least 1"
            )
        if not self.files():
            raise UserError(f"{self.folder} holds no video; point sources.folder to the source clips")

    def files(self) -> list[Path]:
        """All source clips, by name."""
        return sorted(p for p in Path(self.folder).rglob("*") if p.suffix.lower() in VIDEOS and p.is_file())

    def shards(self) -> int:
        """How many shards they make."""
        return -(-len(self.files()) // self.per_shard)

    def _part(self, index: int) -> list[Path]:
        return self.files()[index * self.per_shard : (index + 1) * self.per_shard]

    def identity(self, index: int, out: Path) -> Any:
        named = [[str(path.relative_to(self.folder)), content_hash(path)] for path in self._part(index)]
        return [named, self.frames, self.max_area, self.multiple]

    def make(self, index: int, *inputs: list[Row]) -> list[Row]:
        rows = [clip_row(id=digest(content_hash(p)), source=str(p.relative_to(self.folder))) for p in self._part(index)]
        return each(self._cut, rows)

    def _cut(self, row: Row) -> Row:
        size_of = make_buckets(self.max_area, self.multiple)

        def cut() -> np.ndarray:
            video = read_clip(Path(self.folder), row["source"], self.frames)
            size = nearest_bucket(video.shape[1:3], size_of)
            return np.stack([fit(frame, size) for frame in video])

        key = digest(row["id"], self.frames, self.max_area, self.multiple)
        return row | {"id": key, "scene": row["id"], "source": written(self.out, "source", key, cut)}
