"""The second stage: a picture of each source prompt, and that picture edited."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from PIL import Image

from data_recipes.rows import Row, digest, rejected
from data_recipes.stages import Inputs, accepted
from imvideoedit.common.errors import UserError

FORMATS: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 4},
    "WEBP": {"lossless": True, "method": 2},
    "JPEG": {"quality": 95, "subsampling": 0},
}


class Painter(Protocol):
    """What makes pairs of pictures from texts."""

    def identity(self) -> Any:
        """All that decides its pictures, as JSON."""

    def paint(self, rows: Sequence[Row], seeds: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray] | str]:
        """Source and target of every row, uint8 ``[H, W, 3]`` of one size, or why there are none."""


@dataclass(frozen=True)
class Synthesis:
    """The stage that paints.

    Args:
        painter: of the pictures.
        seed: from which, with a row's id, the row's own seed follows.
        format: of the image files: PNG and WEBP keep every pixel, JPEG takes a fifth of the space.

    Raises:
        UserError: an unknown format.
    """

    painter: Painter
    seed: int = 0
    format: str = "PNG"
    name: ClassVar[str] = "synthesize"
    inputs: ClassVar[Inputs] = {"prompts": None}

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UserError(f"synthesize.format is {self.format!r}; it must be one of {', '.join(FORMATS)}")

    def identity(self, index: int, out: Path) -> Any:
        """The painter's, the seed and the format."""
        return [self.painter.identity(), self.seed, self.format]

    def estimate(self, rows: int) -> str:
        """Nothing is paid."""
        return ""

    def make(self, index: int, *inputs: list[Row]) -> list[Row]:
        """A pair, or the reason why there is none, for each accepted row of texts."""
        rows = accepted(inputs[0])
        seeds = [int(digest(self.seed, row["id"]), 16) % 2**31 for row in rows]
        painted = self.painter.paint(rows, seeds)
        return [self._pair(*item) for item in zip(rows, seeds, painted, strict=True)]

    def _pair(self, row: Row, seed: int, painted: tuple[np.ndarray, np.ndarray] | str) -> Row:
        pair = row | {
            "id": digest(row["id"], seed, self.painter.identity()),
            "prompt_id": row["id"],
            "seed": seed,
            "source": b"",
            "target": b"",
        }
        if isinstance(painted, str):
            return rejected(pair, painted)
        source, target = (encode(image, self.format) for image in painted)
        return pair | {"source": source, "target": target}


def encode(image_HWC: np.ndarray, format: str) -> bytes:
    """An image file of uint8 RGB pixels, in one of ``FORMATS``."""
    file = io.BytesIO()
    Image.fromarray(image_HWC).save(file, format, **FORMATS[format])
    return file.getvalue()
