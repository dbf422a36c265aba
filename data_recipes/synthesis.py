"""The second stage: an image of each source prompt, and that image edited."""

import io
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from data_recipes.rows import Row, digest, rejected
from data_recipes.stages import Component, Stage
from imvideoedit.common.errors import UserError
from imvideoedit.video.images import load_rgb

FORMATS: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 4},
    "WEBP": {"lossless": True, "method": 2},
    "JPEG": {"quality": 95, "subsampling": 0},
}
ImagePair = tuple[np.ndarray, np.ndarray]
"""Source and target, uint8 ``[H, W, 3]`` of one size."""


class Painter(Component):
    """Makes image pairs from texts."""

    @abstractmethod
    def paint(self, rows: Sequence[Row], seeds: Sequence[int]) -> Sequence[ImagePair | str]:
        """The image pair of every row, or why there is none; all rows are of one shard."""


@dataclass(frozen=True)
class Synthesis(Stage):
    """Paints the accepted rows of ``prompts``.

    Args:
        painter: of the images.
        seed: a row's own seed follows from this and its id.
        format: of the image files: PNG and WEBP are lossless, JPEG takes a fifth of the space.

    Raises:
        UserError: an unknown format.
    """

    painter: Painter
    seed: int = 0
    format: str = "PNG"
    name: ClassVar = "synthesize"
    inputs: ClassVar = {"prompts": None}

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UserError(f"synthesize.format is {self.format!r}; it must be one of {', '.join(FORMATS)}")

    def identity(self, index: int, out: Path) -> Any:
        return [self.painter.identity(), self.seed, self.format]

    def make(self, index: int, *inputs: list[Row]) -> list[Row]:
        rows = [row for row in inputs[0] if row["accepted"]]
        seeds = [int(digest(self.seed, row["id"]), 16) % 2**31 for row in rows]
        painted = self.painter.paint(rows, seeds)
        return [self._pair(*item) for item in zip(rows, seeds, painted, strict=True)]

    def _pair(self, row: Row, seed: int, painted: ImagePair | str) -> Row:
        name = digest(row["id"], seed, self.painter.identity())
        pair = row | {"id": name, "prompt_id": row["id"], "seed": seed, "source": b"", "target": b""}
        if isinstance(painted, str):
            return rejected(pair, painted)
        source, target = (encode(image, self.format) for image in painted)
        return pair | {"source": source, "target": target}


def encode(image_HWC: np.ndarray, format: str) -> bytes:
    """An image file of uint8 RGB pixels, in one of ``FORMATS``."""
    file = io.BytesIO()
    Image.fromarray(image_HWC).save(file, format, **FORMATS[format])
    return file.getvalue()


def decode(row: Row) -> ImagePair | str:
    """The image pair of a row with ``id``, ``source`` and ``target``, or why it cannot be read."""
    try:
        source, target = (load_rgb(row[name], f"{name} of {row['id']}") for name in ("source", "target"))
    except UserError as error:
        return f"unreadable image: {error}"
    return source, target
