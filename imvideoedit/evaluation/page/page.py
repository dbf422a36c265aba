"""Assemble and write the report."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from imvideoedit.common.files import replacing
from imvideoedit.evaluation.edits.scored import Scored, measures_of
from imvideoedit.evaluation.page.figures import draw
from imvideoedit.evaluation.page.numbers import compare, headline, methods_of
from imvideoedit.evaluation.page.strips import Strip, extremes
from imvideoedit.evaluation.page.tables import (
    agreement_table,
    dimension_tables,
    quoted_table,
    significance_table,
    task_table,
    title,
)
from imvideoedit.evaluation.published.quoted import quoted
from imvideoedit.evaluation.reporting.table import Table, data_uri, latex, markdown, write_csv


@dataclass(frozen=True)
class About:
    """What a report says beside the numbers.

    Attributes:
        name: of the evaluation.
        facts: how the numbers were made, a sentence each.
        warnings: why they must not be trusted, a sentence each.
        scales: measure -> the most it can be.
        lower: measures of which less is better.
        agreements: pair of judges -> their agreement.
        kinds: of published tables to quote.
        tables: that come first.
    """

    name: str
    facts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    scales: dict[str, float] = field(default_factory=dict)
    lower: frozenset[str] = frozenset()
    agreements: dict[str, dict[str, float]] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()
    tables: list[Table] = field(default_factory=list)


def write_page(scored: Sequence[Scored], about: About, out: Path) -> Path:
    """Write ``report.html``, whole in itself, and its pictures (PNG) and tables (CSV, LaTeX, Markdown) beside it."""
    out.mkdir(parents=True, exist_ok=True)
    tables, quotes, plots, strips = _contents(scored, about)
    for name, picture in plots.items():
        with replacing(out / f"{name}.png") as path:
            path.write_bytes(picture)
    for place, table in enumerate([*tables, *quotes]):
        name = f"table_{place + 1:02d}"
        write_csv(table, out / f"{name}.csv")
        with replacing(out / f"{name}.tex") as path:
            path.write_text(latex(table), encoding="utf-8")
    with replacing(out / "tables.md") as path:
        path.write_text(
            "\n\n".join(f"## {table.title}\n\n{markdown(table)}" for table in [*tables, *quotes]) + "\n",
            encoding="utf-8",
        )
    loaders = [
        PackageLoader("imvideoedit.evaluation.page", "."),
        PackageLoader("imvideoedit.evaluation.reporting", "."),
    ]
    environment = Environment(loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined)
    text = environment.get_template("edits.html.j2").render(
        about=about,
        tables=tables,
        quotes=quotes,
        plots={name: data_uri(picture) for name, picture in plots.items()},
        strips=strips,
        unscored=[(one.row.name, problem) for one in scored for problem in one.problems.values()],
        methods=methods_of(scored),
        count=len(scored),
        title=title,
    )
    with replacing(out / "report.html") as path:
        path.write_text(text, encoding="utf-8")
    return out / "report.html"


def _contents(
    scored: Sequence[Scored], about: About
) -> tuple[list[Table], list[Table], dict[str, bytes], dict[str, list[Strip]]]:
    measures = measures_of(scored)
    shown = [name for name in measures if not name.endswith(".spread")]
    main = headline(shown)
    tables = [*about.tables, *dimension_tables(scored, measures)]
    plots: dict[str, bytes] = {}
    strips: dict[str, list[Strip]] = {}
    if main is not None:
        if any(one.row.task for one in scored):
            tables.append(task_table(scored, main))
        if len(methods_of(scored)) > 1:
            tables.append(significance_table(compare(scored, shown), methods_of(scored)[0]))
        plots = draw(scored, shown, main, about.scales)
        strips = extremes(scored, main, main in about.lower)
    if about.agreements:
        tables.append(agreement_table(about.agreements))
    quotes = [quoted_table(table) for table in quoted(about.kinds)] if about.kinds else []
    return tables, quotes, plots, strips
