"""``python -m imvideoedit.evaluation.nano.report DIR [--out DIR/report]``: one page about an evaluation or a multirun.

Writes a self-contained ``report.html``, ``table.csv`` with every value, ``table.md`` and the page's plots as PNGs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.common.escaping import markdown_code, markdown_text, write_csv
from imvideoedit.common.terminal import say
from imvideoedit.evaluation.nano.plots import draw
from imvideoedit.evaluation.nano.report_data import Run, Variant, collect, references, variants
from imvideoedit.evaluation.nano.report_estimates import COLUMNS, ReportRow, estimates
from imvideoedit.evaluation.nano.report_tables import length_table, overall_table, parts_table, task_table
from imvideoedit.evaluation.nano.scoring import WEIGHTS
from imvideoedit.evaluation.reporting.charts import AT_ONCE
from imvideoedit.evaluation.reporting.pages import data_uri, render, write_plots, write_text
from imvideoedit.evaluation.reporting.table import Table, markdown
from imvideoedit.video.pictures import open_picture


def write_report(folder: Path, out: Path) -> Path:
    """Write the report on a folder and print which runs have no scores; returns the page.

    Raises:
        UserError: there are no scores in the folder, a file cannot be read, or ``out`` cannot be made.
    """
    runs = collect(folder)
    known, compared = variants(runs), references(runs)
    rows = estimates(known, compared)
    tables = [overall_table(rows), parts_table(rows), task_table(rows), length_table(rows)]
    waiting = [run.place for run in runs if not run.rows]
    plots = draw(known, compared)
    about = {"name": _name(folder), "facts": _facts(known, runs), "waiting": waiting}
    strips = {variant.label: _strips(variant.runs[0]) for variant in known}
    shown = {"tables": tables, "strips": strips, "at_once": AT_ONCE if len(known) > AT_ONCE else 0}
    page = render("nano.html.j2", plots, weights=WEIGHTS, **about, **shown)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {out} cannot be made ({error.strerror}); give another with --out") from error
    write_plots(plots, out)
    _write_csv(rows, out / "table.csv")
    write_text(out / "table.md", _markdown(about, tables))
    write_text(out / "report.html", page)
    if waiting:
        say("without scores:", ", ".join(waiting))
    return out / "report.html"


def _name(folder: Path) -> str:
    """A folder's name, without the machine's paths; that of its parent too if it is just ``scores``."""
    place = folder.resolve()
    return f"{place.parent.name}/{place.name}" if place.name == "scores" else place.name


def _facts(known: Sequence[Variant], runs: Sequence[Run]) -> str:
    lengths = sorted({row["frames"] for variant in known for row in variant.rows})
    scored = sum(bool(run.rows) for run in runs)
    frames = " and ".join(str(length) for length in lengths)
    counts = f"{_counted(len(known), 'variant')}, {_counted(scored, 'scored run')}, videos of {frames} frames"
    return counts + _inputs_given(known)


def _inputs_given(known: Sequence[Variant]) -> str:
    """Which exact inputs the editors had besides source and text; empty where none had any."""
    given = {variant.label: str(variant.rows[0].get("inputs") or "none") for variant in known}
    if set(given.values()) == {"none"}:
        return ""
    if len(set(given.values())) == 1:
        return f"; exact inputs given: {next(iter(given.values()))}"
    return "; exact inputs given: " + "; ".join(f"{names} ({label})" for label, names in given.items())


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _write_csv(rows: Sequence[ReportRow], path: Path) -> None:
    values = [[row.get(key, "") for key in COLUMNS] for row in rows]
    write_csv(
        path, [COLUMNS, *([round(cell, 4) if isinstance(cell, float) else cell for cell in row] for row in values)]
    )


def _markdown(about: dict[str, Any], tables: Sequence[Table]) -> str:
    paragraphs = [
        f"# NanoEdit-Bench: {markdown_text(about['name'])}",
        f"{about['facts'][0].upper()}{markdown_text(about['facts'][1:])}.",
    ]
    if about["waiting"]:
        paragraphs.append("Without scores: " + ", ".join(map(markdown_code, about["waiting"])) + ".")
    paragraphs += [text for table in tables for text in (f"## {table.title}", markdown(table))]
    return "\n\n".join(paragraphs) + "\n"


def _strips(run: Run) -> dict[str, str]:
    """Task -> its strip as a data URI."""
    found = {}
    for path in run.strips:
        try:
            with open_picture(path) as image:
                image.verify()
        except (OSError, SyntaxError) as error:  # the latter is Pillow's for a broken PNG
            raise UserError(f"{path} is not a valid image; evaluate this run again, or remove the file") from error
        found[path.stem.replace("_", " ")] = data_uri(path.read_bytes())
    return found


@exit_cleanly
def main() -> None:
    """Write the report and print its path."""
    parser = CommandLine(prog="python -m imvideoedit.evaluation.nano.report", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="of an evaluation, or of a multirun of scored runs")
    parser.add_argument("--out", type=Path, help="folder to write; DIR/report if not given")
    args = parser.parse_args()
    say("the report:", write_report(args.folder, args.out or args.folder / "report"))


if __name__ == "__main__":
    main()
