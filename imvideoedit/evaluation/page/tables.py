"""The report's tables."""

import math
from collections.abc import Sequence

from imvideoedit.evaluation.edits.scored_edits import ScoredEdit
from imvideoedit.evaluation.page.estimates import Comparison, estimate_of, methods_of, tasks_of
from imvideoedit.evaluation.published.quoted import Quoted
from imvideoedit.evaluation.reporting.statistics import Estimate
from imvideoedit.evaluation.reporting.table import Table

WIDEST = 6  # measures in one table


def dimension_tables(edits: Sequence[ScoredEdit], measures: Sequence[str]) -> list[Table]:
    """For each scorer, a row per method and a column per measure, with intervals."""
    tables = []
    for scorer in dict.fromkeys(name.split(".")[0] for name in measures):
        own = [name for name in measures if name.split(".")[0] == scorer]
        for start in range(0, len(own), WIDEST):
            part = own[start : start + WIDEST]
            more = f", {start + 1} to {start + len(part)}" if len(own) > WIDEST else ""
            rows = [
                [method, *(_interval(estimate_of(edits, method, name)) for name in part)]
                for method in methods_of(edits)
            ]
            tables.append(Table(f"{title(scorer)}{more}: mean (95 %)", ["", *map(_measure, part)], rows))
    return tables


def task_table(edits: Sequence[ScoredEdit], measure: str) -> Table:
    """A row per task and a column per method, of one measure; the last row is all edits."""
    methods = methods_of(edits)
    rows = [
        [title(task), *(_interval(estimate_of(edits, method, measure, task)) for method in methods)]
        for task in tasks_of(edits)
    ]
    total = ["all edits", *(_interval(estimate_of(edits, method, measure)) for method in methods)]
    return Table(f"{title(measure)}, each task: mean (95 %)", ["", *methods], [*rows, total])


def significance_table(comparisons: Sequence[Comparison], first: str) -> Table:
    """A row per comparison with the first method."""
    rows = [
        [
            f"{one.method}, {title(one.measure)}",
            _interval(one.difference, "+"),
            str(one.pairs),
            f"{one.p:.3g}",
            "significant" if one.significant else "not significant",
        ]
        for one in comparisons
    ]
    header = ["", f"difference from {first} (95 %)", "pairs", "p (Wilcoxon, Holm)", "at 5 %"]
    return Table(f"Against {first}, on the edits that both have", header, rows)


def agreement_table(found: dict[str, dict[str, float]]) -> Table:
    """A row per dimension."""
    rows = [
        [name, *(_known(values[key]) for key in ("pearson", "spearman", "mae")), f"{values['pairs']:.0f}"]
        for name, values in found.items()
    ]
    return Table("Agreement of the two judges", ["", "Pearson", "Spearman", "mean absolute error", "pairs"], rows)


def quoted_table(table: Quoted) -> Table:
    """A published table, as it was printed."""
    keys = list(table.rows[0])
    texts = [key for key in ("method", "task") if key in keys]
    order = texts + [key for key in keys if key not in texts]
    rows = [[_printed(row[key]) for key in order] for row in table.rows]
    return Table(f"Quoted: {table.title}", ["", *map(title, order[1:])], rows)


def _printed(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else title(str(value))


def _known(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def title(name: str) -> str:
    """A name in the code as readable text."""
    return name.replace("_", " ").replace(".", ": ")


def _measure(name: str) -> str:
    return title(name.split(".", 1)[1])


def _interval(found: Estimate | None, sign: str = "") -> str:
    if found is None:
        return ""
    size = max(abs(found.mean), abs(found.high), abs(found.low))
    places = 1 if size >= 10 else 2 if size >= 2 else 3
    return f"{found.mean:{sign}.{places}f} ({found.low:{sign}.{places}f} to {found.high:{sign}.{places}f})"
