"""``python -m imvideoedit.evaluation.vbench.cross_check EDITS --python PYTHON``: ours against VBench's own.

The ``vbench`` package needs older libraries than this one, so it runs in an environment of its own, with the
interpreter ``--python`` (made with ``python -m venv`` and ``pip install vbench``). Both score the same videos; for each
dimension the means, Pearson's and Spearman's correlation and the mean absolute difference are printed and written as
CSV.
"""

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.common.json_file import read_json
from imvideoedit.evaluation.edits.manifest import EditRow, read_methods
from imvideoedit.evaluation.edits.score_store import ScoreStore
from imvideoedit.evaluation.judge.agreement import agreement
from imvideoedit.evaluation.reporting.table import Table, markdown, write_csv
from imvideoedit.evaluation.vbench.scorer import DIMENSIONS, VBenchScorer

ORIGINAL = """
import sys
import torch
from vbench import VBench
videos, out, device, *dimensions = sys.argv[1:]
bench = VBench(torch.device(device), "", out)
bench.evaluate(videos_path=videos, name="original", dimension_list=dimensions, mode="custom_input")
"""


def original_scores(python: Path, videos: Path, dimensions: Sequence[str], device: str) -> dict[str, dict[str, float]]:
    """Scores by the package: dimension -> name of the video -> value.

    Args:
        python: the interpreter of the environment that has ``vbench``.
        videos: folder of ``.mp4`` files.

    Raises:
        UserError: it cannot be started or fails.
    """
    with tempfile.TemporaryDirectory() as out:
        order = [str(videos), out, device, *dimensions]
        own = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        try:
            done = subprocess.run(
                [str(python), "-c", ORIGINAL, *order], capture_output=True, text=True, env=own, cwd=out
            )
        except OSError as error:
            raise UserError(f"{python} cannot be run ({error.strerror}); name vbench's interpreter") from error
        results = next(Path(out).glob("*_eval_results.json"), None)
        if done.returncode or results is None:
            last = (done.stderr.strip().splitlines() or ["it wrote no results"])[-1]
            raise UserError(f"vbench in {python} failed ({last}); run it there by hand to see more")
        return read_original(read_json(results, fix="run vbench there by hand"))


def read_original(results: dict) -> dict[str, dict[str, float]]:
    """Parse the package's result file, which has the mean and a record per video for each dimension.

    Raises:
        UserError: it has other contents.
    """
    try:
        return {
            dimension: {
                Path(one["video_path"]).stem: _share(float(one["video_results"]), dimension) for one in per_video
            }
            for dimension, (_, per_video) in results.items()
        }  # fmt: skip
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"vbench's results are not as expected ({error!r}); run vbench there by hand") from error


def _share(value: float, dimension: str) -> float:
    """The package divides MUSIQ's mean by 100, but not its values per video."""
    return value / 100 if dimension == "imaging_quality" else value


def comparison_table(ours: dict[str, dict[str, float]], theirs: dict[str, dict[str, float]]) -> Table:
    """A row per dimension that both have."""
    rows = []
    for dimension in ours:
        shared = [name for name in ours[dimension] if name in theirs.get(dimension, {})]
        if shared:
            pair = [[side[dimension][name] for name in shared] for side in (ours, theirs)]
            found = agreement(*pair)
            means = [f"{sum(values) / len(values):.4f}" for values in pair]
            rows.append(
                [dimension, *means, *(f"{found[key]:.4f}" for key in ("pearson", "spearman", "mae")), str(len(shared))]
            )
    header = ["", "ours", "vbench", "Pearson", "Spearman", "mean absolute difference", "videos"]
    return Table("VBench's six dimensions, ours against the package's", header, rows)


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    """Score with both, print and write the table."""
    parser = CommandLine(prog="python -m imvideoedit.evaluation.vbench.cross_check", description=__doc__)
    parser.add_argument("edits", type=Path, help="manifest, or folder with one")
    parser.add_argument("--python", type=Path, required=True, help="interpreter of the environment with vbench")
    parser.add_argument("--weights", type=Path, help="folder of our networks' weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/vbench_cross_check"))
    args = parser.parse_args(argv)
    rows = read_methods(args.edits, [])
    scores = ScoreStore(args.out / "scores").collect(rows, VBenchScorer(weights=args.weights, device=args.device))
    names = [_name(number, row) for number, row in enumerate(rows)]
    ours = {
        dimension: {name: score[dimension] for name, score in zip(names, scores, strict=True) if dimension in score}
        for dimension in DIMENSIONS
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, row in zip(names, rows, strict=True):
            assert row.edited is not None
            (Path(folder) / f"{name}.mp4").symlink_to(row.edited.absolute())
        theirs = original_scores(args.python, Path(folder), list(DIMENSIONS), args.device)
    table = comparison_table(ours, theirs)
    write_csv(table, args.out / "cross_check.csv")
    print(markdown(table))


def _name(number: int, row: EditRow) -> str:
    return f"{number:04d}_{row.method}"


if __name__ == "__main__":
    main()
