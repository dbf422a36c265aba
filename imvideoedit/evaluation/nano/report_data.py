"""Reads the scored runs in a folder, and groups them by variant.

A scored run is a folder with ``videos.parquet`` or ``scores/videos.parquet``, and maybe with the files of Hydra, the
CSV logger and the export: ``.hydra/overrides.yaml``, ``csv/metrics.csv`` and ``adapter.safetensors``.
"""

import csv
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import yaml

from imvideoedit.common.errors import UserError
from imvideoedit.evaluation.nano.exact import PSNRS
from imvideoedit.evaluation.nano.scoring import WEIGHTS
from imvideoedit.evaluation.nano.summary import VideoScores
from imvideoedit.methods.adapter_header import open_adapter, read_header

SCORES = ("overall", *WEIGHTS, *PSNRS)
NOT_SETTINGS = ("seed", "resume", "run_dir", "out")  # overrides that make no other variant
LOSS = "validation/loss"


@dataclass(frozen=True)
class Run:
    """A training run or an evaluation; without ``rows`` if it was not scored.

    Attributes:
        place: its folder, relative to the collected one.
        overrides: key -> value, from its command line.
        rows: of ``videos.parquet``, with videos numbered within their task.
        curve: step and validation loss.
        parameters, steps: number of trained parameters, and training steps; None without an adapter file.
        strips: its images, one per task.
    """

    place: str
    overrides: dict[str, str]
    rows: list[VideoScores]
    curve: list[tuple[int, float]]
    parameters: int | None
    steps: int | None
    strips: list[Path]


@dataclass(frozen=True)
class Variant:
    """Runs that differ in their seed alone; or an editor without training, which has no runs.

    Attributes:
        settings: those of its overrides that vary among the runs; its label lists them.
        rows: of its editor, each with the ``seed`` of its run.
    """

    label: str
    settings: dict[str, str]
    runs: list[Run]
    rows: list[VideoScores]


def collect(folder: Path) -> list[Run]:
    """All runs in a folder, in the order of their sweep; a folder that holds ``videos.parquet`` is one evaluation.

    Raises:
        UserError: there is no folder, no scores in it, or a file cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; give that of an evaluation or of a multirun")
    folder = Path(os.path.abspath(folder))  # "." has a name and a parent, too
    if (folder / "videos.parquet").is_file():
        return [_read_run(folder, folder / "videos.parquet")]
    scored: dict[Path, Path] = {}
    for path in folder.rglob("videos.parquet"):
        if scored.setdefault(_run_folder(path), path) != path:
            raise UserError(f"{_run_folder(path)} holds two evaluations, one of them in scores; move one away")
    if not scored:
        raise UserError(
            f"no scores (videos.parquet) in {folder} or below; "
            f"make some with: python -m imvideoedit.evaluate +suite=nano adapter=FILE out={folder}"
        )
    waiting = [path for path in _started(folder) if not any(run.is_relative_to(path) for run in scored)]
    order = sorted([*scored, *waiting], key=lambda path: (_job_number(path), _natural(path.as_posix())))
    return [_read_run(folder, scored[path]) if path in scored else _unscored(folder, path) for path in order]


def variants(runs: Sequence[Run]) -> list[Variant]:
    """The scored runs by their settings, in the order of their first runs.

    A label lists the overrides that vary among all runs: ``method=no_gate data.pairs=300``; ``adapter`` if none does.
    """
    keys = dict.fromkeys(key for run in runs for key in run.overrides if key not in NOT_SETTINGS)
    varying = [key for key in keys if len({run.overrides.get(key) for run in runs}) > 1]
    bases = {key: _base([run.overrides.get(key, "") for run in runs]) for key in varying}
    groups: dict[str, list[Run]] = {}
    settings: dict[str, dict[str, str]] = {}
    for run in [run for run in runs if run.rows]:
        own = {key: run.overrides[key].removeprefix(bases[key]) for key in varying if key in run.overrides}
        label = " ".join(f"{key}={value}" if value else key for key, value in own.items())
        label = label or ("default" if varying else "adapter")
        groups.setdefault(label, []).append(run)
        settings[label] = own
    return [Variant(label, settings[label], *_by_seed(group)) for label, group in groups.items()]


def references(runs: Sequence[Run]) -> list[Variant]:
    """Copying and the autoencoder's ceiling; each video once, although every run has it."""
    found = []
    for editor in ("copy", "ceiling"):
        rows: dict[tuple, VideoScores] = {}
        for run in runs:
            for row in _rows_of(run, editor):
                rows.setdefault((row["task"], row["video"], row["frames"]), {**row, "seed": ("", 0)})
        if rows:
            found.append(Variant(editor, {}, [], list(rows.values())))
    return found


def _by_seed(runs: list[Run]) -> tuple[list[Run], list[VideoScores]]:
    """Runs sorted by seed, and their rows; a repeated run of a seed counts as another seed."""
    rows, times = [], dict.fromkeys([_seed(run) for run in runs], 0)
    ordered = sorted(runs, key=lambda run: _natural(_seed(run)))
    for run in ordered:
        name = _seed(run), times[_seed(run)]
        times[_seed(run)] += 1
        rows += [{**row, "seed": name} for row in _rows_of(run, "adapter")]
    return ordered, rows


def _seed(run: Run) -> str:
    return run.overrides.get("seed", "0")  # as in conf/train.yaml


def _rows_of(run: Run, editor: str) -> list[VideoScores]:
    return [row for row in run.rows if row["editor"] == editor]


def _run_folder(parquet: Path) -> Path:
    return parquet.parent.parent if parquet.parent.name == "scores" else parquet.parent


def _started(folder: Path) -> Iterator[Path]:
    """Folders in which Hydra started a run; an evaluation in ``scores`` belongs to the run in its parent."""
    for overrides in folder.rglob(".hydra/overrides.yaml"):
        if overrides.parts[-3] != "scores":
            yield overrides.parent.parent


def _unscored(root: Path, folder: Path) -> Run:
    return Run(_place(root, folder), _overrides(root, folder), [], [], None, None, [])


def _read_run(root: Path, parquet: Path) -> Run:
    folder = _run_folder(parquet)
    adapter = folder / "adapter.safetensors"
    parameters, steps = _adapter(adapter) if adapter.is_file() else (None, None)
    strips = sorted((parquet.parent / "strips").glob("*.png"))
    curve = _curve(folder / "csv" / "metrics.csv")
    return Run(_place(root, folder), _overrides(root, folder), _rows(parquet), curve, parameters, steps, strips)


def _place(root: Path, folder: Path) -> str:
    return folder.relative_to(root).as_posix() if folder.is_relative_to(root) else folder.name


def _rows(path: Path) -> list[VideoScores]:
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a valid parquet file ({error}); evaluate this run again") from error
    lacking = {"editor", "task", "video", "frames", *SCORES} - set(rows[0] if rows else ())
    if lacking or not any(row["editor"] == "adapter" for row in rows):
        what = f"the columns {', '.join(sorted(lacking))}" if lacking else "rows of the adapter"
        raise UserError(f"{path} lacks {what}; evaluate this run again")
    firsts: dict[tuple, int] = {}
    for row in rows:
        of = row["editor"], row["task"], row["frames"]
        # Evaluations number their videos through all tasks; the number within the task is the same in all of them.
        row["video"] -= firsts.setdefault(of, row["video"])
    return rows


def _overrides(root: Path, folder: Path) -> dict[str, str]:
    """The overrides of a run; without a Hydra file its folder is its only override."""
    path = folder / ".hydra" / "overrides.yaml"
    if not path.is_file():
        return {"run": _place(root, folder)}
    lines = _yaml(path)
    if not isinstance(lines, list):
        raise UserError(f"{path} holds no list of overrides; restore it, or move its folder away")
    parted = (str(line).partition("=") for line in lines)
    return {key.lstrip("+"): value for key, _, value in parted}


def _job_number(folder: Path) -> float:
    """Number of a run in its sweep; infinite outside of a sweep."""
    path = folder / ".hydra" / "hydra.yaml"
    settings: Any = _yaml(path) if path.is_file() else None
    for key in ("hydra", "job", "num"):
        settings = settings.get(key) if isinstance(settings, dict) else None
    return settings if isinstance(settings, int) else math.inf


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it, or move its folder away") from error


def _curve(path: Path) -> list[tuple[int, float]]:
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [(int(row["step"]), float(row[LOSS])) for row in csv.DictReader(file) if row.get(LOSS)]
    except (csv.Error, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{path} is not a valid table of metrics ({error}); restore it, or move it away") from error


def _adapter(path: Path) -> tuple[int, int | None]:
    """Number of parameters in an adapter file, and the training steps in its header."""
    steps = read_header(path).training.get("steps")
    file = open_adapter(path)
    return sum(math.prod(file.shape(name)) for name in file.names), steps


def _base(values: Sequence[str]) -> str:
    """The folder that absolute paths among the values share, with its slash; labels leave it out."""
    folders = [os.path.dirname(value) for value in values if os.path.isabs(value)]
    return os.path.join(os.path.commonpath(folders), "") if folders else ""


def _natural(text: str) -> list[str | int]:
    """Sort key with 300 before 1000."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", text)]
