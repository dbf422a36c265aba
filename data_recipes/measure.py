"""``python -m data_recipes.measure [--rows 100000]``: how fast rows stream through the rules, in how much memory."""

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from scipy.ndimage import uniform_filter

from data_recipes.drafting import Unlike
from data_recipes.rows import Row, digest
from data_recipes.rules import PixelRules, TextRules, measure
from data_recipes.shards import Shards
from data_recipes.stages import shards_of
from data_recipes.synthesis import encode
from data_recipes.vocabulary import read_vocabulary
from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.common.machine import peak_bytes
from imvideoedit.video.images import load_rgb
from imvideoedit.world.tasks import TASKS

ROWS_PER_SHARD = 100
SIZE = (480, 832)
PIXEL_PAIRS = 60


def made_up(rows: int) -> Iterator[Row]:
    """Rows of prompts as long as real ones, from the recipe's own words."""
    vocabulary = read_vocabulary()
    words = [vocabulary.compose(0, index, (2, 4)).words() for index in range(1009)]
    for index in range(rows):
        parts = [words[(index * step) % len(words)] for step in (1, 7, 31, 137)]
        source = f"A picture of {', beside '.join(parts)}, number {index}."
        row: Row = {"id": digest(index), "scene": digest("scene", index), "environment": "made up"}
        row |= {"task": TASKS[index % 10], "instruction": f"change number {index}", "origin": "{}"}
        row |= {"source_prompt": source}
        row |= {"edited_prompt": f"{source} It rains.", "height": SIZE[0], "width": SIZE[1]}
        yield row | {"accepted": True, "reason": ""}


def write(shards: Shards, rows: int) -> None:
    """The rows as a finished stage."""
    source, keys = made_up(rows), []
    while chunk := [row for _, row in zip(range(ROWS_PER_SHARD), source, strict=False)]:
        keys.append(digest(chunk[0]["id"]))
        shards.write(len(keys) - 1, chunk, keys[-1])
    shards.finish(keys, {"stage": "prompts"})


def timed(name: str, count: int, unit: str, work: Callable[[], object]) -> None:
    """Do it, and say how fast it was, by the clock and by the processor's time."""
    before, wall, cpu = peak_bytes(), time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
        f"{name}: {count / wall:,.0f} {unit}/s by the clock, {count / cpu:,.0f} by the processor's time; "
        f"memory {before / 2**20:,.0f} -> {peak_bytes() / 2**20:,.0f} MiB at most",
        flush=True,
    )


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = CommandLine(prog="python -m data_recipes.measure", description="Speed of the rules.")
    parser.add_argument("--rows", type=int, default=100_000, help="of texts (default 100,000)")
    rows = parser.parse_args(argv).rows
    if rows < 1:
        raise UserError(f"--rows is {rows}; it must be at least 1")
    texts, unlike = TextRules(), Unlike(0.8)
    with tempfile.TemporaryDirectory() as folder:
        shards = shards_of(Path(folder), "prompts")
        timed("writing", rows, "rows", lambda: write(shards, rows))
        timed("reading", rows, "rows", lambda: sum(1 for _ in shards.rows()))
        timed("reading and text rules", rows, "rows", lambda: sum(1 for row in shards.rows() if texts.problem(row)))
        timed("and near-duplicates", rows, "rows", lambda: sum(1 for row in shards.rows() if unlike.earlier(row)))
    for kind in ("PNG", "JPEG"):
        pairs = [_pair(seed, kind) for seed in range(PIXEL_PAIRS)]
        timed(f"decoding and pixel rules, 480x832 {kind}", PIXEL_PAIRS, "pairs", partial(_check, pairs))


def _pair(seed: int, kind: str) -> Row:
    """A smooth picture with some grain, and the same with a part inverted, as files."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (SIZE[0] // 16, SIZE[1] // 16, 3)).astype(np.float32)
    smooth = uniform_filter(coarse.repeat(16, 0).repeat(16, 1), (16, 16, 1))
    source = np.clip(smooth + rng.normal(0, 2, smooth.shape), 0, 255).astype(np.uint8)
    target = source.copy()
    target[100:300, 200:500] = 255 - target[100:300, 200:500]
    return {"source": encode(source, kind), "target": encode(target, kind)}


def _check(pairs: list[Row]) -> None:
    rules = PixelRules({"default": {"ssim": [0, 1], "changed": [0, 1], "hash": [0, 1]}})
    for pair in pairs:
        assert rules.sizes(pair) is None
        assert rules.problem("relighting", measure(load_rgb(pair["source"]), load_rgb(pair["target"]))) is None


if __name__ == "__main__":
    main()
