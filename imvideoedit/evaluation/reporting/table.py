"""Tables of formatted cells, as Markdown, LaTeX and CSV."""

from dataclasses import dataclass
from pathlib import Path

from imvideoedit.common import escaping

_LATEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
}


@dataclass(frozen=True)
class Table:
    """Formatted cells; the first cell of each row is its name."""

    title: str
    header: list[str]
    rows: list[list[str]]


def markdown(table: Table) -> str:
    """The table in Markdown, without its title."""
    head, *rows = ([escaping.markdown_text(cell) for cell in row] for row in (table.header, *table.rows))
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def latex(table: Table) -> str:
    """The table in LaTeX for the package ``booktabs``, captioned by its title."""
    columns = "l" + "r" * (len(table.header) - 1)
    lines = [" & ".join(map(_escaped, row)) + r" \\" for row in table.rows]
    header = " & ".join(map(_escaped, table.header)) + r" \\"
    body = "\n".join([r"\toprule", header, r"\midrule", *lines, r"\bottomrule"])
    return (
        f"\\begin{{table}}\n\\centering\n\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}\n"
        f"\\caption{{{_escaped(table.title)}}}\n\\end{{table}}\n"
    )


def write_csv(table: Table, path: Path) -> None:
    """Write the header and the rows."""
    escaping.write_csv(path, [table.header, *table.rows])


def _escaped(cell: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(cell.split()))
