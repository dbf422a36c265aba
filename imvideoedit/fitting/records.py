"""Which stages of a fit are made, from what: each is recorded once its result is in its place.

A stage's record ``records/STAGE.json`` holds all that decided its result, and what names the result. The same command
passes over stages whose record says what would be written now; any other is made again, from its beginning.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imvideoedit.common.errors import UserError
from imvideoedit.common.json_file import parse_json, read_checked, write_checked

Facts = Mapping[str, Any]
PARTS = {"made_from", "made"}


class Records:
    """The records of one fit.

    Args:
        folder: of the fit.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "records"

    def found(self, stage: str, made_from: Facts) -> Any:
        """What a stage made from just this; None if it is not made, or from something else.

        Args:
            made_from: JSON-able.
        """
        record = self._read(stage)
        return record["made"] if record is not None and record["made_from"] == _as_read(made_from) else None

    def differing(self, stage: str, made_from: Facts) -> list[str]:
        """Names of what was otherwise when the stage was made; empty if it never was."""
        record = self._read(stage)
        if record is None:
            return []
        before, now = record["made_from"], _as_read(made_from)
        return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))

    def write(self, stage: str, made_from: Facts, made: Any) -> None:
        """Record that a stage's result is in its place.

        Args:
            made: names the result; JSON-able.
        """
        write_checked(self._path(stage), {"made_from": dict(made_from), "made": made}, indent=1)

    def forget(self, stage: str) -> None:
        """Remove a stage's record."""
        self._path(stage).unlink(missing_ok=True)

    def _path(self, stage: str) -> Path:
        return self._folder / f"{stage}.json"

    def _read(self, stage: str) -> dict[str, Any] | None:
        """A record; None where there is none, or a damaged one: the stage is then made again."""
        try:
            record = read_checked(self._path(stage))
        except UserError:
            return None
        return record if record.keys() == PARTS and isinstance(record["made_from"], dict) else None


def _as_read(facts: Facts) -> dict[str, Any]:
    """Facts as a file holds them, with lists for tuples and texts for keys."""
    return parse_json(json.dumps(dict(facts)), "the record")
