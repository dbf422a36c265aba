"""The papers' tables: their totals are the sums of their parts, but where they are not, and that is found."""

import math
from collections.abc import Sequence

import pytest

from imvideoedit.evaluation.judge.protocols import PAPER, SIX
from imvideoedit.evaluation.page.tables import quoted_table
from imvideoedit.evaluation.published.quoted import Record, quoted
from imvideoedit.world.tasks import TASKS

TABLES = {table.key: table for table in quoted()}
PARTS = ("adherence", "temporal", "fidelity", "artifacts")


def wrong_totals(rows: Sequence[Record], parts: Sequence[str] = PARTS, decimals: int = 1) -> list[Record]:
    """Rows whose ``total`` differs from the sum of their parts by more than rounding, with ``sum`` added.

    Each printed value is off by at most half of its last decimal, so sum and total differ by at most n + 1 halves.

    Args:
        decimals: of the printed parts and totals.
    """
    margin = (len(parts) + 1) * 0.5 * 10**-decimals + 1e-9
    found = []
    for row in rows:
        total = math.fsum(row[part] for part in parts)
        if abs(total - row["total"]) > margin:
            found.append({**row, "sum": round(total, decimals)})
    return found


def wrong_means(rows: Sequence[Record], tasks: Sequence[Record], keys: Sequence[str]) -> list[Record]:
    """Cells of a table of means that differ from the means over the tasks by more than rounding.

    Args:
        rows: a row per method, printed with two decimals.
        tasks: a row per method and task, printed with one decimal.

    Returns:
        ``method``, ``measure``, ``printed`` and ``mean`` of each such cell.
    """
    found = []
    for row in rows:
        own = [task for task in tasks if task["method"] == row["method"]]
        for key in keys:
            mean = math.fsum(task[key] for task in own) / len(own)
            if abs(mean - row[key]) > 0.05 + 0.005 + 1e-9:
                found.append({"method": row["method"], "measure": key, "printed": row[key], "mean": round(mean, 2)})
    return found


def test_the_judges_arithmetic_gives_the_totals_of_tables_8_and_9():
    rows = TABLES["judge_tasks"].rows
    assert len(rows) == 80 and {row["task"] for row in rows} == set(TASKS)
    for row in rows:
        total = PAPER.total({part: row[part] for part in PARTS})
        assert total == pytest.approx(row["total"], abs=0.25), "each of five numbers is rounded to a tenth"
        assert all(0 <= row[part.key] <= part.highest for part in PAPER.dimensions)
    assert wrong_totals(rows) == []


def test_means_over_tables_8_and_9_are_table_5_but_for_the_cells_that_are_flagged():
    found = wrong_means(TABLES["judge"].rows, TABLES["judge_tasks"].rows, (*PARTS, "total"))
    flagged = {(cell["method"], cell["measure"]): (cell["printed"], cell["mean"]) for cell in found}
    assert len(TABLES["judge"].rows) == 8 and all(printed != mean for printed, mean in flagged.values())
    assert {method for method, _ in flagged} == {
        "ICVE (13B)", "Kiwi-Edit (5B)", "Lucy-Edit-Dev (5B)", "OmniVideo2 (1.3B)"
    }  # fmt: skip
    assert flagged["OmniVideo2 (1.3B)", "total"] == (47.0, 46.38) and len(flagged) == 10


def test_the_row_that_does_not_add_up_is_flagged_and_no_other():
    assert wrong_totals(TABLES["judge"].rows, decimals=2) == []
    (flagged,) = wrong_totals(TABLES["ablation"].rows, decimals=2)
    assert flagged["method"] == "without Update Module" and (flagged["total"], flagged["sum"]) == (47.29, 46.49)


def test_a_total_that_is_off_by_more_than_rounding_is_found():
    row = {"adherence": 1.0, "temporal": 1.0, "fidelity": 1.0, "artifacts": 1.0, "total": 4.2}
    assert wrong_totals([row]) == [] and wrong_totals([row], decimals=2) == [{**row, "sum": 4.0}]
    assert wrong_totals([row | {"total": 4.3}]) != []


def test_every_table_is_marked_as_quoted_and_says_from_where():
    for table in TABLES.values():
        assert quoted_table(table).title.startswith("Quoted: ") and "table" in table.title and table.rows
    assert [table.key for table in quoted(["vbench"])] == ["vbench"]


def test_the_ablation_in_six_dimensions_ends_at_the_papers_own_row():
    rows = {row["method"]: row for row in TABLES["six_ablation"].rows}
    parts = [part.key for part in SIX.dimensions]
    (whole,) = [row for row in TABLES["six"].rows if (row["task"], row["method"]) == ("complex", "MiVE")]
    for name in ("MiVE: one encoder, self-attention", "MiVE: first and last layer"):
        assert [rows[name][part] for part in parts] == [whole[part] for part in parts]
    last = rows["MiVE: last layer only"]
    assert [part for part in parts if last[part] > whole[part]] == ["content", "aesthetics"]
