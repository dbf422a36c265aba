"""The table that the torture prints: tried, failed, lost."""

from collections.abc import Iterable
from dataclasses import dataclass, field

SHOWN = 20  # failures named for a row; all are counted


@dataclass
class Row:
    """What one attack did.

    Attributes:
        part: what was attacked, and with what, such as ``fuzz_json: adapter headers``.
        tried: inputs, kills or runs.
        failed: each traceback, hang, crash or silently wrong result, in one line.
        lost: each work that was done and is gone, in one line.
        notes: what a reader of the table should know, such as what could not be tried here.
    """

    part: str
    tried: int
    failed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing failed, nothing was lost, and something was tried or a note says why not."""
        return not self.failed and not self.lost and bool(self.tried or self.notes)


def table(rows: Iterable[Row]) -> str:
    """The rows as text, with their sum, then each failure, loss and note."""
    rows = list(rows)
    total = Row("in all", sum(row.tried for row in rows))
    total.failed = [each for row in rows for each in row.failed]
    total.lost = [each for row in rows for each in row.lost]
    width = max(len(row.part) for row in (*rows, total))
    lines = [f"{'part':<{width}}  {'tried':>7}  {'failed':>6}  {'lost':>6}"]
    for row in (*rows, total):
        lines.append(f"{row.part:<{width}}  {row.tried:>7}  {len(row.failed):>6}  {len(row.lost):>6}")
    for row in rows:
        for kind, each in (("failed", row.failed), ("lost", row.lost), ("note", row.notes)):
            lines += [f"{kind}: {row.part}: {text}" for text in each[:SHOWN]]
            if len(each) > SHOWN:
                lines.append(f"{kind}: {row.part}: and {len(each) - SHOWN} more")
    return "\n".join(lines)
