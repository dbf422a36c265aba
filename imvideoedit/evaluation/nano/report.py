"""``python -m imvideoedit.evaluation.nano.report DIR [--out DIR/report]``: one page about an evaluation or a multirun.

Writes ``report.html``, whole in itself, ``table.csv`` with every number, ``table.md`` and the page's plots as PNGs.
"""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.common.files import replacing
from imvideoedit.evaluation.nano.plots import AT_ONCE, draw
from imvideoedit.evaluation.nano.report_data import PSNRS, Run, Variant, collect, references, variants
from imvideoedit.evaluation.nano.report_numbers import COLUMNS, Line, numbers
from imvideoedit.evaluation.nano.scoring import WEIGHTS
from imvideoedit.evaluation.reporting.table import Table, data_uri, markdown


def report(folder: Path, out: Path) -> Path:
    """Write the report on a folder; returns the page. Names the runs that have no scores.

    Raises:
        UserError: nothing scored in the folder, a file that cannot be read, or ``out`` cannot be made.
    """
    runs = collect(folder)
    known, compared = variants(runs), references(runs)
    lines = numbers(known, compared)
    tables = [overall_table(lines), parts_table(lines), task_table(lines), length_table(lines)]
    waiting = [run.place for run in runs if not run.rows]
    plots = draw(known, compared)
    about = {"name": _name(folder), "facts": _facts(known, runs), "waiting": waiting, "weights": WEIGHTS}
    page = _page(about, tables, plots, known)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {out} cannot be made ({error.strerror}); give another with --out") from error
    for name, picture in plots.items():
        with replacing(out / f"{name}.png") as path:
            path.write_bytes(picture)
    _write_csv(lines, out / "table.csv")
    with replacing(out / "table.md") as path:
        path.write_text(_markdown(about, tables), encoding="utf-8")
    with replacing(out / "report.html") as path:
        path.write_text(page, encoding="utf-8")
    if waiting:
        print("without scores:", ", ".join(waiting))
    return out / "report.html"


def overall_table(lines: Sequence[Line]) -> Table:
    """All videos: the score, how far it is from the first variant's, and what it took; no column that is empty."""
    header = ["", "overall (95 %)", "paired difference (95 %)", "", "seeds", "videos", "parameters", "steps"]
    rows = []
    for line in _of_all_videos(lines):
        far = _interval(line, "difference", "difference_low", "difference_high", "+")
        counts = [_count(line.get(key, "")) for key in ("seeds", "videos", "parameters", "steps")]
        rows.append([line["variant"], _interval(line), far, line.get("verdict", ""), *counts])
    used = [column for column, *cells in zip(range(len(header)), *rows, strict=True) if any(cells)]
    return Table("All videos", [header[n] for n in used], [[row[n] for n in used] for row in rows])


def parts_table(lines: Sequence[Line]) -> Table:
    """All videos: the four parts of the score and the PSNR of each region."""
    keys = (*WEIGHTS, *PSNRS)
    rows = [[line["variant"], *(_cell(line[key]) for key in keys)] for line in _of_all_videos(lines)]
    return Table("Parts of the score, and PSNR", ["", *map(_title, keys)], rows)


def task_table(lines: Sequence[Line]) -> Table:
    """A row a task, a column a variant."""
    labels = list(dict.fromkeys(line["variant"] for line in lines))
    rows: dict[str, dict[str, str]] = {}
    for line in lines:
        if line["task"]:
            cell = f"{_cell(line['overall'])} / {_cell(line['changed_psnr'])}"
            rows.setdefault(line["task"], {})[line["variant"]] = cell
    cells = [[task.replace("_", " "), *(row.get(label, "") for label in labels)] for task, row in rows.items()]
    return Table("Each task: overall / PSNR of the changed region (dB)", ["", *labels], cells)


def length_table(lines: Sequence[Line]) -> Table:
    """A row for every length and variant."""
    header = ["", "frames", "overall (95 %)", *map(_title, PSNRS)]
    rows = []
    for line in lines:
        if line["frames"]:
            rows.append([line["variant"], str(line["frames"]), _interval(line), *(_cell(line[key]) for key in PSNRS)])
    return Table("Each length", header, rows)


def _of_all_videos(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if not line["task"] and not line["frames"]]


def _title(key: str) -> str:
    return key.replace("_psnr", " (dB)")


def _interval(line: Line, key: str = "overall", low: str = "low", high: str = "high", sign: str = "") -> str:
    if key not in line:
        return ""
    return f"{line[key]:{sign}.1f} ({line[low]:{sign}.1f} to {line[high]:{sign}.1f})"


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1f}"


def _count(value: int | str) -> str:
    return f"{int(value):,}" if str(value).isdecimal() else str(value)


def _name(folder: Path) -> str:
    """Of the folder, with no more of the machine's paths than tells it apart."""
    place = folder.resolve()
    return f"{place.parent.name}/{place.name}" if place.name == "scores" else place.name


def _facts(known: Sequence[Variant], runs: Sequence[Run]) -> str:
    lengths = sorted({row["frames"] for variant in known for row in variant.rows})
    scored = sum(bool(run.rows) for run in runs)
    frames = " and ".join(str(length) for length in lengths)
    return f"{_counted(len(known), 'variant')}, {_counted(scored, 'scored run')}, videos of {frames} frames"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _write_csv(lines: Sequence[Line], path: Path) -> None:
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for line in lines:
            writer.writerow({key: round(cell, 4) if isinstance(cell, float) else cell for key, cell in line.items()})


def _markdown(about: dict[str, Any], tables: Sequence[Table]) -> str:
    paragraphs = [f"# NanoEdit-Bench: {about['name']}", f"{about['facts'][0].upper()}{about['facts'][1:]}."]
    if about["waiting"]:
        paragraphs.append("Without scores: " + ", ".join(f"`{place}`" for place in about["waiting"]) + ".")
    paragraphs += [text for table in tables for text in (f"## {table.title}", markdown(table))]
    return "\n\n".join(paragraphs) + "\n"


def _page(about: dict[str, Any], tables: Sequence[Table], plots: dict[str, bytes], known: Sequence[Variant]) -> str:
    strips = {variant.label: _strips(variant.runs[0]) for variant in known}
    pictures = {name: data_uri(picture) for name, picture in plots.items()}
    loader = PackageLoader("imvideoedit.evaluation.reporting", ".")
    template = Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template("report.html.j2")
    cut = AT_ONCE if len(known) > AT_ONCE else 0
    return template.render(**about, tables=tables, plots=pictures, strips=strips, at_once=cut)


def _strips(run: Run) -> dict[str, str]:
    """Task -> its picture."""
    found = {}
    for path in run.strips:
        try:
            with Image.open(path) as picture:
                picture.verify()
        except (OSError, SyntaxError) as error:  # the latter is Pillow's for a broken PNG
            raise UserError(f"{path} is no whole picture; evaluate this run again, or remove the file") from error
        found[path.stem.replace("_", " ")] = data_uri(path.read_bytes())
    return found


@exit_cleanly
def main() -> None:
    """Write the report and print where it is."""
    parser = CommandLine(prog="python -m imvideoedit.evaluation.nano.report", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="of an evaluation, or of a multirun of scored runs")
    parser.add_argument("--out", type=Path, help="folder to write; DIR/report if not given")
    args = parser.parse_args()
    print("the report:", report(args.folder, args.out or args.folder / "report"))


if __name__ == "__main__":
    main()
