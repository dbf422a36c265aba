"""Assembles and writes the report."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imvideoedit.common.escaping import markdown_text
from imvideoedit.evaluation.edits.scored_edits import ScoredEdit, measures_of
from imvideoedit.evaluation.page.estimates import compare_with_first, headline, methods_of
from imvideoedit.evaluation.page.figures import draw
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
from imvideoedit.evaluation.reporting.pages import render, write_plots, write_text
from imvideoedit.evaluation.reporting.table import Table, latex, markdown, write_csv


@dataclass(frozen=True)
class About:
    """What a report states in addition to the scores.

    Attributes:
        name: of the evaluation.
        facts: how the values were measured, a sentence each.
        warnings: why they cannot be trusted, a sentence each.
        scales: measure -> its maximum.
        lower: measures for which lower is better.
        agreements: pair of judges -> their agreement.
        kinds: of published tables to quote.
        tables: shown first.
    """

    name: str
    facts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    scales: dict[str, float] = field(default_factory=dict)
    lower: frozenset[str] = frozenset()
    agreements: dict[str, dict[str, float]] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()
    tables: list[Table] = field(default_factory=list)


def write_page(edits: Sequence[ScoredEdit], about: About, out: Path) -> Path:
    """Write a self-contained ``report.html``, its plots (PNG) and its tables (CSV, LaTeX, Markdown)."""
    out.mkdir(parents=True, exist_ok=True)
    tables, quotes, plots, strips = _contents(edits, about)
    write_plots(plots, out)
    for place, table in enumerate([*tables, *quotes]):
        name = f"table_{place + 1:02d}"
        write_csv(table, out / f"{name}.csv")
        write_text(out / f"{name}.tex", latex(table))
    sections = [f"## {markdown_text(table.title)}\n\n{markdown(table)}" for table in [*tables, *quotes]]
    write_text(out / "tables.md", "\n\n".join(sections) + "\n")
    page = render(
        "edits.html.j2",
        plots,
        about=about,
        tables=tables,
        quotes=quotes,
        strips=strips,
        unscored=[(edit.row.name, problem) for edit in edits for problem in edit.problems.values()],
        methods=methods_of(edits),
        count=len(edits),
        title=title,
    )
    write_text(out / "report.html", page)
    return out / "report.html"


def _contents(
    edits: Sequence[ScoredEdit], about: About
) -> tuple[list[Table], list[Table], dict[str, bytes], dict[str, list[Strip]]]:
    measures = measures_of(edits)
    shown = [name for name in measures if not name.endswith(".spread")]
    main = headline(shown)
    tables = [*about.tables, *dimension_tables(edits, measures)]
    plots: dict[str, bytes] = {}
    strips: dict[str, list[Strip]] = {}
    if main is not None:
        if any(edit.row.task for edit in edits):
            tables.append(task_table(edits, main))
        if len(methods_of(edits)) > 1:
            tables.append(significance_table(compare_with_first(edits, shown), methods_of(edits)[0]))
        plots = draw(edits, shown, main, about.scales)
        strips = extremes(edits, main, main in about.lower)
    if about.agreements:
        tables.append(agreement_table(about.agreements))
    quotes = [quoted_table(table) for table in quoted(about.kinds)] if about.kinds else []
    return tables, quotes, plots, strips
