"""A painter for tests of recipes: quick pictures that depend on the texts, some of them faulty."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_recipes.rows import Row


class Painter:
    """A ramp with blocks; the edit moves one. Of sixteen pairs one stays as it is, one fails, one is noise."""

    models = {"source images": "ramp", "edited images": "ramp"}

    def identity(self) -> Any:
        """Its name."""
        return "test painter"

    def paint(self, rows: Sequence[Row], seeds: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray] | str]:
        """As ``Painter.paint``."""
        return [self._paint(row) for row in rows]

    def _paint(self, row: Row) -> tuple[np.ndarray, np.ndarray] | str:
        fate = hashlib.sha256(row["edited_prompt"].encode()).digest()[0] % 16
        if fate == 0:
            return "painter: out of paint"
        size = (row["height"], row["width"])
        source = draw(row["source_prompt"], size)
        if fate == 1:
            return source, source
        if fate == 2:
            return source, np.random.default_rng(0).integers(0, 256, source.shape, dtype=np.uint8)
        target = source.copy()
        target[: size[0] // 2, : size[1] // 2] = 255 - target[: size[0] // 2, : size[1] // 2]
        return source, target


def draw(text: str, size: tuple[int, int]) -> np.ndarray:
    """A picture that a text decides, uint8 ``[H, W, 3]``."""
    digest = hashlib.sha256(text.encode()).digest()
    ramp = np.linspace(0, 120, size[1], dtype=np.uint8)
    image = np.broadcast_to(ramp[None, :, None], (*size, 3)).copy()
    for place in range(4):
        top, left = digest[place] * (size[0] - 16) // 256, digest[place + 8] * (size[1] - 16) // 256
        image[top : top + 16, left : left + 16] = list(digest[16 + 3 * place : 19 + 3 * place])
    return image
