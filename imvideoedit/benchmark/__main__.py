"""``python -m imvideoedit.benchmark train|edit|length|experiment [--json FILE]``: what this machine needs.

``train`` and ``edit`` give ratios within one run of one block, ``length`` compares long nano videos with short ones,
``experiment`` times the 13K experiment's own steps at its real size with random weights; it wants a GPU, and takes
less than ten minutes there.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from imvideoedit.benchmark import edit, experiment, length, train
from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.common.files import replacing

KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    "train": train.measure,
    "edit": edit.measure,
    "length": length.measure,
}
SMALL: dict[str, Any] = {"num_attention_heads": 4, "attention_head_dim": 48, "num_layers": 1, "ffn_dim": 768}


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    """Measure, print a table, write the figures."""
    parser = CommandLine(prog="python -m imvideoedit.benchmark", description=__doc__)
    parser.add_argument("kind", choices=[*KINDS, "experiment"])
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--size", choices=("wan", "nano"), default="wan", help="width of the block, and its tokens")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=2, help="the fastest counts; of length: videos of each task")
    arguments = parser.parse_args(argv)
    if arguments.repeats < 1:
        raise UserError(f"--repeats is {arguments.repeats}; it must be at least 1")
    device = torch.device(arguments.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    options: dict[str, Any] = {"repeats": arguments.repeats}
    if arguments.size == "nano" and arguments.kind != "length":
        options |= {"config": SMALL, "grid": (1 if arguments.kind == "train" else 5, 8, 8)}
    if arguments.kind == "experiment":
        figures = experiment.measure(small=arguments.size == "nano")
    else:
        figures = KINDS[arguments.kind](device, dtype, **options)
    if arguments.json is not None:
        with replacing(arguments.json) as path:
            path.write_text(json.dumps(figures, indent=2) + "\n")
    if arguments.kind != "experiment":  # which tells as it goes
        show(figures)


def show(figures: dict[str, Any]) -> None:
    """Print the ratios, then the seconds behind them."""
    console = Console()
    table = Table("ratio", "")
    for name, value in figures.items():
        if not isinstance(value, dict):
            table.add_row(name, f"{value:.3g}")
    console.print(table)
    rows = figures.get("rows") or {"pass": {name: {"seconds": s} for name, s in figures["seconds"].items()}}
    for name, passes in rows.items():
        for kind, numbers in passes.items():
            console.print(f"{name} {kind}:", ", ".join(f"{key} {number:.4g}" for key, number in numbers.items()))


if __name__ == "__main__":
    main()
