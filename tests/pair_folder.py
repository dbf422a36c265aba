"""A folder of image pairs of two shapes, as a recipe leaves it."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import WORDS

SHAPES = ((32, 32), (16, 48))


def write_pairs(folder: Path, count: int) -> None:
    """Pairs ``p0`` to ``p<count - 1>`` of random pixels; a third of them are wide."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = []
    for row in range(count):
        for side in "st":
            pixels = rng.integers(0, 256, (*SHAPES[row % 3 == 2], 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{row}{side}.png")
        text = " ".join(rng.choice(WORDS, 3))
        texts = {"instruction": text, "source_prompt": text, "edited_prompt": text}
        images = {"source": f"{row}s.png", "target": f"{row}t.png"}
        lines.append(json.dumps({"id": f"p{row}", "task": "relighting", **texts, **images}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
