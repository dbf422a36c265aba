"""The interface of scorers, and their scores on disk: a small file per edit and scorer, so that a run can resume."""

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from imvideoedit.common.errors import UserError, one_line
from imvideoedit.common.json_file import jsonable, read_checked, write_checked
from imvideoedit.evaluation.edits.manifest import EditRow
from imvideoedit.evaluation.weights.files import hash_file

Score = dict[str, Any]
"""What a scorer returns for one edit: values by measure, and texts such as a judge's reasoning."""


class Unscored(Exception):
    """Why this edit got no score; others may get one."""


class Scorer(Protocol):
    """Scores edits, one per call.

    Attributes:
        name: of this scorer; the key of its files.
        kind: of the published tables with the same measures.
        workers: edits that may be scored at the same time.
        scales: measure -> its maximum, if it has one.
        lower: measures for which lower is better.
    """

    name: str
    kind: str
    workers: int
    scales: dict[str, float]
    lower: frozenset[str]

    def facts(self) -> list[str]:
        """How its values are measured, a sentence each."""
        ...

    def warnings(self) -> list[str]:
        """Why its values cannot be trusted, a sentence each."""
        ...

    def identity(self) -> str:
        """Everything that decides the scores, except the edit: settings, model, hashes of weights."""
        ...

    def score(self, row: EditRow) -> Score:
        """Values by measure, and texts for the report.

        Raises:
            Unscored: this edit cannot be scored.
            UserError: no edit can be scored until the user fixes something.
        """
        ...


class ScoreStore:
    """A folder of scores: ``<scorer>/<key>.json``, complete or absent.

    The key is a hash of the videos' bytes, the texts and the scorer's identity, not of paths: a changed edit is scored
    again, a moved one is not. What else a method was given shows in the edited video alone. Unscored edits are not
    stored; the next run tries them again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hashes: dict[Path, str] = {}

    def collect(
        self, rows: Sequence[EditRow], scorer: Scorer, advance: Callable[[EditRow], None] = lambda row: None
    ) -> list[Score]:
        """The scores of all rows in order, stored or new; at most ``workers`` are scored at the same time.

        An unscored row has ``problem`` in place of values. ``advance`` is called after each row.

        Raises:
            UserError: the scorer cannot continue; scores so far are stored.
        """
        identity = scorer.identity()
        scores: dict[int, Score] = {}
        with ThreadPoolExecutor(scorer.workers) as pool:
            running: dict[Future[Score], int] = {}
            try:
                for place, row in enumerate(rows):
                    running[pool.submit(self._one, row, scorer, identity)] = place
                    if len(running) >= 2 * scorer.workers:  # a bounded queue, for any number of rows
                        self._take(running, scores, rows, advance)
                while running:
                    self._take(running, scores, rows, advance)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return [scores[place] for place in range(len(rows))]

    def _take(self, running: dict[Future[Score], int], scores: dict[int, Score], rows, advance) -> None:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            place = running.pop(future)
            scores[place] = future.result()
            advance(rows[place])

    def _one(self, row: EditRow, scorer: Scorer, identity: str) -> Score:
        try:
            path = self._folder / scorer.name / f"{self._key(row, identity, getattr(scorer, 'reads', ()))}.json"
            stored = _read(path)
            if stored is not None:
                return stored
            score = jsonable(scorer.score(row))
        except Unscored as error:
            return {"problem": " ".join(str(error).split())}
        except UserError:
            raise
        except Exception as error:  # of this edit alone, as far as is known
            return {"problem": one_line(error)}
        write_checked(path, score)
        return score

    def _key(self, row: EditRow, identity: str, reads: Sequence[str] = ()) -> str:
        """Of an edit and a scorer's identity; ``reads`` names the inputs that it looks at."""
        facts = {key: value for key, value in asdict(row).items() if key not in ("id", "method", "inputs")}
        facts |= {f"input.{name}": row.inputs[name] for name in reads if name in row.inputs}
        facts |= {key: self._hash(value) for key, value in facts.items() if isinstance(value, Path)}
        return hashlib.sha256(json.dumps([identity, facts]).encode()).hexdigest()[:32]

    def _hash(self, path: Path) -> str:
        try:
            if path not in self._hashes:
                self._hashes[path] = hash_file(path)
        except OSError as error:
            raise Unscored(f"{path} cannot be read ({error.strerror})") from error
        return self._hashes[path]


def _read(path: Path) -> Score | None:
    """A kept score; None where there is none, or a damaged one."""
    try:
        score = read_checked(path)
    except UserError:
        return None
    return score if all(isinstance(value, str | int | float | None) for value in score.values()) else None
