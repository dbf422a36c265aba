"""What reviewers decided, kept on disk the moment it is said: one file of lines a reviewer, only ever added to."""

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from data_recipes.rows import Row, digest, rejected
from data_recipes.stages import Inputs, shards_of
from imvideoedit.common.errors import UserError

TEXTS = ("instruction", "source_prompt", "edited_prompt")


@dataclass(frozen=True)
class Decision:
    """One reviewer's word on one pair; ``texts`` are those that were mended."""

    id: str
    accept: bool
    texts: Mapping[str, str] = field(default_factory=dict)
    at: float = 0.0  # seconds since 1970


class Decisions:
    """All reviewers' decisions in a folder; the last of a reviewer on a pair holds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, reviewer: str, decision: Decision) -> None:
        """Add a decision; it is on the disk when this returns.

        Raises:
            UserError: the reviewer's name cannot be a file's.
        """
        path = self._path(reviewer)
        path.parent.mkdir(parents=True, exist_ok=True)
        stamped = asdict(decision) | {"at": decision.at or round(time.time(), 3)}
        # After a crash in the middle of a line: what follows starts on a line of its own.
        line = ("" if _ends_well(path) else "\n") + json.dumps(stamped) + "\n"
        with path.open("ab") as file:
            file.write(line.encode())
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
            raise UserError(f"reviewer {reviewer!r} is no name; give letters, digits, spaces and . @ + -")
        return self._folder / f"{reviewer}.jsonl"


def _ends_well(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
    except OSError:  # not there, or empty
        return True


def _decision(line: str) -> Decision | None:
    """What a line says; None for one that a crash tore."""
    try:
        read = json.loads(line)
        texts = {name: str(text) for name, text in read["texts"].items() if name in TEXTS}
        return Decision(str(read["id"]), bool(read["accept"]), texts, float(read["at"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def verdict(decisions: Mapping[str, Decision]) -> bool:
    """Whether reviewers accept a pair: more of them do than do not."""
    return sum(1 if decision.accept else -1 for decision in decisions.values()) > 0


def mended(decisions: Mapping[str, Decision]) -> dict[str, str]:
    """The texts that reviewers mended; of several the last one's."""
    texts: dict[str, str] = {}
    for decision in sorted(decisions.values(), key=lambda decision: decision.at):
        texts |= decision.texts
    return texts


@dataclass(frozen=True)
class Review:
    """The fourth stage: reviewers overrule the filter, both ways, and mend texts; what none saw stays as it was."""

    name: ClassVar[str] = "review"
    inputs: ClassVar[Inputs] = {"synthesize": ("id", *TEXTS), "filter": ("id", "accepted", "reason")}
    folder: Path

    def identity(self, index: int, out: Path) -> Any:
        """The decisions on the shard's pairs."""
        pairs = shards_of(out, "filter").read(index, ["id"])
        decisions = self._read()
        said = {row["id"]: decisions[row["id"]] for row in pairs if row["id"] in decisions}
        return digest([[id_, who, asdict(what)] for id_, all_ in sorted(said.items()) for who, what in all_.items()])

    def estimate(self, rows: int) -> str:
        """Nothing is paid."""
        return ""

    def make(self, index: int, *inputs: list[Row]) -> list[Row]:
        """The pairs that the filter accepted or a reviewer saw."""
        texts = {row["id"]: row for row in inputs[0]}
        decisions = self._read()
        rows = []
        for judged in inputs[1]:
            said = decisions.get(judged["id"], {})
            if said or judged["accepted"]:
                row = {name: texts[judged["id"]][name] for name in ("id", *TEXTS)}
                row |= {"reviewers": len(said), "accepted": True, "reason": ""} | mended(said)
                rows.append(row if not said or verdict(said) else rejected(row, "reviewer"))
        return rows

    def _read(self) -> dict[str, dict[str, Decision]]:
        return Decisions(self.folder).read()
