"""What a GPU would take, foretold without one: ``python -m imvideoedit.benchmark gpu_model``.

Counted costs (:mod:`imvideoedit.benchmark.gpu_rows`) become times of a card (:mod:`imvideoedit.benchmark.cards`).
"""

from typing import Any

from diffusers.utils import logging
from rich.console import Console
from rich.table import Table

from imvideoedit.benchmark.cards import CARDS, H200
from imvideoedit.benchmark.experiment import EPOCHS
from imvideoedit.benchmark.fused import Scheduled
from imvideoedit.benchmark.gpu_rows import (
    BATCH,
    Row,
    block_rows,
    compiled_block_rows,
    compiled_step_rows,
    fit_rows,
    long_block_rows,
    pass_rows,
    step_rows,
)
from imvideoedit.training.dry_run import PAIRS


def foretell() -> dict[str, Any]:
    """Count all rows, print them with their times, and return the figures."""
    logging.set_verbosity_error()  # of modules that are better kept in float32: these have no weights
    backend = Scheduled()
    steps = [*step_rows(), *compiled_step_rows(backend)]
    rows = [*block_rows(), *compiled_block_rows(backend), *long_block_rows(), *pass_rows(), *steps, *fit_rows()]
    console = Console(width=170)
    console.print(_parts(rows), _times(rows))
    count = PAIRS * EPOCHS / BATCH
    hours = {row.name: count * H200.seconds(row.count, row.launch) / 3600 for row in steps if row.pairs == BATCH}
    for name, value in hours.items():
        console.print(f"{PAIRS:,} pairs, {EPOCHS} epochs, on an H200, {name}: {value:.1f} hours")
    figures = {row.name: _figures(row) for row in rows}
    return {"rows": figures, "hours": hours, "graphs": backend.graphs}


def _figures(row: Row) -> dict[str, Any]:
    launches, moved, computed = H200.parts(row.count, row.launch)
    figures: dict[str, Any] = {**vars(row.count), "measured": row.measured}
    figures |= {"launch_seconds": launches, "byte_seconds": moved, "flop_seconds": computed}
    return figures | {card.name: card.seconds(row.count, row.launch) for card in CARDS}


def _parts(rows: list[Row]) -> Table:
    """Counts, their times, the longest of them and their sum, and what is foretold over what was measured."""
    counts, parts = ("launches", "GB", "TFLOP", "GB to or from the host"), ("launches", "bytes", "FLOPs")
    table = Table("on an H200, times in ms", *counts, *parts, "longest", "sum", "foretold", "measured", "ratio")
    for row in rows:
        times = H200.parts(row.count, row.launch)
        count = row.count
        cells = [f"{count.launches:.0f}", f"{count.bytes / 1e9:.1f}", f"{count.flops / 1e12:.2f}"]
        cells.append(f"{count.moved / 1e9:.1f}" if count.moved else "")
        cells += [f"{1e3 * value:.1f}" for value in (*times, max(times), sum(times), H200.seconds(count, row.launch))]
        if row.measured:
            cells += [f"{1e3 * row.measured:.1f}", f"{H200.seconds(row.count, row.launch) / row.measured:.2f}"]
        table.add_row(row.name, *cells)
    return table


def _times(rows: list[Row]) -> Table:
    table = Table("foretold, ms", *(card.name for card in CARDS))
    for row in rows:
        table.add_row(row.name, *(f"{1e3 * card.seconds(row.count, row.launch):.1f}" for card in CARDS))
    return table
