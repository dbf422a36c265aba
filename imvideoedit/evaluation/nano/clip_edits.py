"""``python -m imvideoedit.evaluation.nano.clip_edits --out FOLDER``: LoRA-Edit on nano clips whose exact edit is known.

Each clip has a moving thing that is recoloured, replaced, or changed in an attribute; its mask, with a margin, and the
exact first frame are given. A second clip of each number has a thing that shows only later, with and without a second
edited frame. The same command goes on after the last finished clip, and within a stage of the next one.
"""

import argparse
import math
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.common.json_file import read_checked, write_checked
from imvideoedit.common.owner import owned
from imvideoedit.common.terminal import say
from imvideoedit.editing.edit_file import quiet_loading
from imvideoedit.evaluation.nano.clip_cases import TASKS, sample_case, sample_hidden_case
from imvideoedit.evaluation.nano.clip_fits import Fits, compare, compare_second_frame
from imvideoedit.evaluation.reporting.statistics import Estimate, bootstrap, estimate
from imvideoedit.training.stopping import TrainingStopped
from imvideoedit.wan.backbone import Backbone, load_backbone

SEED = 11
PARTS = ("edit", "later")
AIMS = (  # part, region, of, over, at least (dB)
    ("edit", "changed_psnr", "lora_edit", "copy", 6.0),
    ("edit", "changed_psnr", "lora_edit", "base", 3.0),
    ("edit", "kept_psnr", "lora_edit", "ceiling", -3.0),
    ("edit", "changed_psnr", "lora_edit", "naive", None),
    ("edit", "kept_psnr", "lora_edit", "naive", None),
    ("later", "changed_psnr", "second frame", "first frame", 1.0),
)
Row = Mapping[str, Any]


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    """Fit, edit and compare clip by clip; then print means and differences with their intervals."""
    options = _parser().parse_args(argv)
    how = Fits(options.steps, options.lr, options.rank, options.target, options.sampling)
    quiet_loading()
    settings = asdict(how) | {"backbone": options.backbone, "seed": SEED}
    with owned(options.out, "an evaluation"):
        _claim(options.out / "settings.json", settings)
        rows, backbone = [], None
        for number in range(options.clips):
            row = _made_before(options.out / f"{number:03d}.json")
            if row is None:
                backbone = backbone or load_backbone(options.backbone, device=options.device)
                try:
                    row = measure(backbone, number, how, options.out / "unfinished" / f"{number:03d}")
                except TrainingStopped as stopped:
                    say(stopped)
                    return
                write_checked(options.out / f"{number:03d}.json", dict(row), indent=1)
                shutil.rmtree(options.out / "unfinished", ignore_errors=True)
            rows.append(row)
            say(f"clip {number}: {row['task']}")
    command = "python -m imvideoedit.evaluation.nano.clip_edits " + " ".join(sys.argv[1:] if argv is None else argv)
    for table in tables(rows, command):
        Console(width=120).print(table)


def measure(backbone: Backbone, number: int, how: Fits, folder: Path) -> dict[str, Any]:
    """Scores of both clips of a number, by part and name; what is begun in the folder goes on.

    Args:
        backbone: of image-to-video, with all its parts.
    """
    case = sample_case(np.random.default_rng((SEED, number)), TASKS[number % len(TASKS)])
    hidden = sample_hidden_case(np.random.default_rng((SEED, number, 1)))
    return {
        "task": case.task,
        "edit": compare(backbone, case, how, folder / "edit"),
        "later": compare_second_frame(backbone, hidden, how, folder / "later"),
    }


def tables(rows: Sequence[Row], command: str) -> Iterator[Table]:
    """Means over the clips, and paired differences with what they are to be, with 95 % intervals."""
    means = Table("", "changed region, dB (95 %)", "kept region, dB (95 %)", title=f"{len(rows)} clips, by {command}")
    for part in PARTS:
        for name in rows[0][part]:
            regions = ("changed_psnr", "kept_psnr")
            cells = [_cell(over_clips([row[part][name][region] for row in rows])) for region in regions]
            means.add_row(f"{name}{', last third' if part == 'later' else ''}", *cells)
    yield means
    differences = Table("difference", "region", "dB (95 %)", "at least")
    for part, region, of, over, least in AIMS:
        found = over_clips([row[part][of][region] - row[part][over][region] for row in rows])
        aim = "" if least is None else f"{least:+g}: {'yes' if found.mean >= least else 'no'}"
        differences.add_row(f"{of} over {over}", region.removesuffix("_psnr"), _cell(found, "+"), aim)
    yield differences


def over_clips(values: Sequence[float]) -> Estimate:
    """Mean and 95 % interval of the values that are known."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return Estimate(math.nan, math.nan, math.nan)
    return estimate(float(np.mean(known)), bootstrap(known))


def _cell(found: Estimate, sign: str = "") -> str:
    return f"{found.mean:{sign}.1f} ({found.low:{sign}.1f} to {found.high:{sign}.1f})"


def _made_before(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    row = read_checked(path, "remove it to have the clip made again")
    # What JSON has no number for is an empty region.
    return {
        key: {name: {k: math.nan if v is None else v for k, v in found.items()} for name, found in row[key].items()}
        if key in PARTS
        else value
        for key, value in row.items()
    }


def _claim(path: Path, settings: dict[str, Any]) -> None:
    """Take the folder for these settings.

    Raises:
        UserError: it holds clips of others.
    """
    if path.exists():
        before = read_checked(path)
        if differing := sorted(name for name in settings if before.get(name) != settings[name]):
            raise UserError(f"{path.parent} holds clips with another {', '.join(differing)}; give another --out")
    else:
        write_checked(path, settings, indent=1)


def _parser() -> CommandLine:
    parser = CommandLine(
        prog="python -m imvideoedit.evaluation.nano.clip_edits",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="FOLDER", help="takes the scores of each clip")
    add("--clips", type=int, default=20, help="how many, of each kind")
    add("--backbone", default="nano_image_to_video", help="a name or a folder")
    add("--device", help="cpu, cuda, …; default: the GPU if there is one")
    add("--steps", type=int, default=Fits.steps, help="of each stage")
    add("--lr", type=float, default=Fits.rate, help="learning rate")
    add("--rank", type=int, default=Fits.rank, help="of the deltas")
    add("--target", choices=("paper", "release"), default=Fits.target, help="layers that are trained")
    add("--sampling", type=int, default=Fits.sampling, help="solver steps of an edit")
    return parser


if __name__ == "__main__":
    main()
