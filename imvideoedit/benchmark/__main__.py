"""``python -m imvideoedit.benchmark train|edit|length|experiment|gpu_model|bases|memory [--json FILE]``: what it costs.

``train`` and ``edit`` print ratios within one run of one block, ``length`` compares long nano videos with short ones,
``experiment`` times the steps of the 13K experiment at full size with random weights; it needs a GPU, and takes less
than ten minutes there. ``gpu_model`` measures nothing: it counts launches, bytes and FLOPs at full size, and foretells
times of GPUs; ``bases`` says so which card holds an edit with which base, and ``memory`` what an edit keeps there.
"""

from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from imvideoedit.benchmark.base_cards import foretell_bases
from imvideoedit.benchmark.edit import measure_edit
from imvideoedit.benchmark.edit_memory import measure_memory
from imvideoedit.benchmark.experiment import measure_experiment
from imvideoedit.benchmark.gpu_model import foretell
from imvideoedit.benchmark.length import measure_lengths
from imvideoedit.benchmark.train import measure_training
from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.common.json_file import write_json

KINDS = ("train", "edit", "length", "experiment", "gpu_model", "bases", "memory")
SMALL: dict[str, Any] = {"num_attention_heads": 4, "attention_head_dim": 48, "num_layers": 1, "ffn_dim": 768}


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    """Measure, print a table, write the results."""
    parser = CommandLine(prog="python -m imvideoedit.benchmark", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--json", type=Path, help="file to write the results to")
    parser.add_argument("--size", choices=("wan", "nano"), default="wan", help="width and tokens of the block")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=2, help="the fastest run counts; for length: videos per task")
    arguments = parser.parse_args(argv)
    if arguments.repeats < 1:
        raise UserError(f"--repeats is {arguments.repeats}; it must be at least 1")
    device = torch.device(arguments.device)
    results = _measure(arguments.kind, device, arguments.repeats, small=arguments.size == "nano")
    if arguments.json is not None:
        write_json(arguments.json, results)
    if arguments.kind not in ("experiment", "gpu_model", "bases", "memory"):  # which print their own
        print_results(results)


def _measure(kind: str, device: torch.device, repeats: int, small: bool) -> dict[str, Any]:
    if kind == "gpu_model":
        return foretell()
    if kind == "bases":
        return foretell_bases()
    if kind == "memory":
        return measure_memory()
    if kind == "experiment":
        return measure_experiment(small)
    if kind == "length":
        return measure_lengths(device, repeats)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    options: dict[str, Any] = {"repeats": repeats, "config": SMALL if small else None}
    if small:
        options["grid"] = (1 if kind == "train" else 5, 8, 8)
    return measure_training(device, dtype, **options) if kind == "train" else measure_edit(device, dtype, **options)


def print_results(results: dict[str, Any]) -> None:
    """Print the ratios, then the values behind them."""
    console = Console()
    table = Table("ratio", "")
    for name, value in results.items():
        if not isinstance(value, dict):
            table.add_row(name, f"{value:.3g}")
    console.print(table)
    rows = results.get("rows") or {"pass": {name: {"seconds": s} for name, s in results["seconds"].items()}}
    for name, passes in rows.items():
        for kind, values in passes.items():
            console.print(f"{name} {kind}:", ", ".join(f"{key} {value:.4g}" for key, value in values.items()))


if __name__ == "__main__":
    main()
