"""``python -m data_recipes.measure [--rows 100000]``: rows per second through the rules, and memory."""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter

from data_recipes.drafting import NearDuplicates
from data_recipes.rows import Row, digest, prompt_row
from data_recipes.rules import PixelRules, TextRules, pixel_measures
from data_recipes.stages import shards_of
from data_recipes.synthesis import decode, encode
from data_recipes.vocabulary import read_vocabulary
from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.common.machine import peak_bytes
from imvideoedit.world.tasks import TASKS

ROWS_PER_SHARD = 100
SIZE = (480, 832)
PIXEL_PAIRS = 60


def synthetic_rows(rows: int) -> Iterator[Row]:
    """Rows of prompts as long as real ones, from the recipe's own words."""
    vocabulary = read_vocabulary()
    words = [vocabulary.compose(0, index, (2, 4)).words() for index in range(1009)]
    for index in range(rows):
        parts = [words[(index * step) % len(words)] for step in (1, 7, 31, 137)]
        source = f"A picture of {', beside '.join(parts)}, number {index}."
        texts = {"instruction": f"edit {index}", "source_prompt": source, "edited_prompt": f"{source} It rains."}
        yield prompt_row(digest("scene", index), "synthetic", TASKS[index % 10], SIZE, "{}", id=digest(index), **texts)


def timed(name: str, count: int, unit: str, work: Callable[[], object]) -> None:
    """Run ``work`` and print its speed by wall-clock and processor time."""
    before, wall, cpu = peak_bytes(), time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
        f"{name}: {count / wall:,.0f} {unit}/s of wall-clock time, {count / cpu:,.0f} of processor time; "
        f"peak memory {before / 2**20:,.0f} -> {peak_bytes() / 2**20:,.0f} MiB",
        flush=True,
    )


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = CommandLine(prog="python -m data_recipes.measure", description="Speed of the rules.")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of texts (default 100,000)")
    rows = parser.parse_args(argv).rows
    if rows < 1:
        raise UserError(f"--rows is {rows}; it must be at least 1")
    texts, duplicates = TextRules(), NearDuplicates(0.8)
    with tempfile.TemporaryDirectory() as folder:
        shards = shards_of(Path(folder), "prompts")
        source, keys = synthetic_rows(rows), []
        while chunk := list(itertools.islice(source, ROWS_PER_SHARD)):
            keys.append(chunk[0]["id"])
            shards.write(len(keys) - 1, chunk, keys[-1])
        shards.finish(keys, {})
        rules: dict[str, Callable[[Row], Any]] = {
            "": bool,
            " and text rules": texts.problem,
            " and near-duplicates": duplicates.earlier,
        }
        for name, rule in rules.items():
            timed(f"reading{name}", rows, "rows", partial(_count, shards, rule))
    for kind in ("PNG", "JPEG"):
        pairs = [_pair(seed, kind) for seed in range(PIXEL_PAIRS)]
        timed(f"decoding and pixel rules, 480x832 {kind}", PIXEL_PAIRS, "pairs", partial(_check, pairs))


def _count(shards: Any, rule: Callable[[Row], Any]) -> int:
    """Rows that the rule finds something in."""
    return sum(1 for row in shards.rows() if rule(row))


def _pair(seed: int, kind: str) -> Row:
    """A smooth image with some grain, and the same with a part inverted, as files."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (SIZE[0] // 16, SIZE[1] // 16, 3)).astype(np.float32)
    smooth = uniform_filter(coarse.repeat(16, 0).repeat(16, 1), (16, 16, 1))
    source = np.clip(smooth + rng.normal(0, 2, smooth.shape), 0, 255).astype(np.uint8)
    target = source.copy()
    target[100:300, 200:500] = 255 - target[100:300, 200:500]
    return {"id": str(seed), "source": encode(source, kind), "target": encode(target, kind)}


def _check(pairs: list[Row]) -> None:
    rules = PixelRules({"default": {"ssim": [0, 1], "changed": [0, 1], "hash": [0, 1]}})
    for pair in pairs:
        images = decode(pair)
        assert not isinstance(images, str) and rules.sizes(pair) is None
        assert rules.problem("relighting", pixel_measures(*images)) is None


if __name__ == "__main__":
    main()
