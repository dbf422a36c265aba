"""Reviewers' decisions, each on disk at once: an append-only JSONL file for each reviewer."""

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from data_recipes.rows import TEXTS, Row, digest, rejected
from data_recipes.stages import Stage, shards_of
from imvideoedit.common.errors import UserError
from imvideoedit.common.json_file import parse_json


@dataclass(frozen=True)
class Decision:
    """One reviewer's decision on one pair; ``texts`` are those that the reviewer corrected."""

    id: str
    accept: bool
    texts: Mapping[str, str] = field(default_factory=dict)
    at: float = 0.0  # seconds since 1970


class Decisions:
    """All reviewers' decisions in a folder; a reviewer's last one on a pair counts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, reviewer: str, decision: Decision) -> None:
        """Append a decision; it is on disk when this returns.

        Raises:
            UserError: the reviewer's name is no file name.
        """
        path = self._path(reviewer)
        path.parent.mkdir(parents=True, exist_ok=True)
        stamped = asdict(decision) | {"at": decision.at or round(time.time(), 3)}
        with path.open("a") as file:
            file.write(f"\n{json.dumps(stamped)}")  # the newline first, as a crash may have cut the last line off
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> dict[str, dict[str, Decision]]:
        """Pair to reviewer to decision."""
        decisions: dict[str, dict[str, Decision]] = {}
        for path in sorted(self._folder.glob("*.jsonl")):
            for line in path.read_text(errors="replace").splitlines():
                decision = _decision(line)
                if decision:
                    decisions.setdefault(decision.id, {})[path.stem] = decision
        return decisions

    def _path(self, reviewer: str) -> Path:
        if not re.fullmatch(r"\w[\w .@+-]{0,63}", reviewer) or reviewer.endswith((" ", ".")):
            raise UserError(f"reviewer {reviewer!r} is no name; use letters, digits, spaces and . @ + -")
        return self._folder / f"{reviewer}.jsonl"


def _decision(line: str) -> Decision | None:
    """The decision of a line; None if a crash cut the line off."""
    try:
        read = parse_json(line, "the decision")
        texts = {name: str(text) for name, text in read["texts"].items() if name in TEXTS}
        return Decision(str(read["id"]), bool(read["accept"]), texts, float(read["at"]))
    except (UserError, ValueError, KeyError, TypeError, AttributeError):
        return None


def majority_accepts(decisions: Mapping[str, Decision]) -> bool:
    """Whether more reviewers accept a pair than reject it."""
    return sum(1 if decision.accept else -1 for decision in decisions.values()) > 0


def corrections(decisions: Mapping[str, Decision]) -> dict[str, str]:
    """The texts that reviewers corrected; the last one's counts."""
    texts: dict[str, str] = {}
    for decision in sorted(decisions.values(), key=lambda decision: decision.at):
        texts |= decision.texts
    return texts


@dataclass(frozen=True)
class Review(Stage):
    """The fourth stage: reviewers overrule the filter, both ways, and correct texts; other pairs stay as they are."""

    folder: Path
    name: ClassVar = "review"
    inputs: ClassVar = {"synthesize": ("id", *TEXTS), "filter": ("id", "accepted", "reason")}

    def identity(self, index: int, out: Path) -> Any:
        decisions = Decisions(self.folder).read()
        ids = sorted(row["id"] for row in shards_of(out, "filter").read(index, ["id"]))
        return digest([[name, who, asdict(one)] for name in ids for who, one in decisions.get(name, {}).items()])

    def make(self, index: int, *inputs: list[Row]) -> list[Row]:
        """The pairs that the filter accepted or a reviewer saw."""
        pairs = {pair["id"]: pair for pair in inputs[0]}
        decisions = Decisions(self.folder).read()
        rows = []
        for verdict in inputs[1]:
            own = decisions.get(verdict["id"], {})
            if own or verdict["accepted"]:
                row = pairs[verdict["id"]] | {"reviewers": len(own), "accepted": True, "reason": ""} | corrections(own)
                rows.append(row if not own or majority_accepts(own) else rejected(row, "reviewer"))
        return rows
