"""Scores of edits on disk, one small file for each edit and scorer, so that an interrupted run goes on."""

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from imvideoedit.common.files import replacing
from imvideoedit.evaluation.edits.manifest import EditRow
from imvideoedit.evaluation.reporting.jsonable import jsonable
from imvideoedit.evaluation.weights.files import hash_file

Score = dict[str, Any]


class Unscored(Exception):
    """This edit got no score, and why; others may."""


class Scorer(Protocol):
    """Gives scores to one edit at a time."""

    name: str
    """Of the family of scores; the key of its files."""
    kind: str
    """Of published tables that show the same numbers."""
    workers: int
    """Edits that may be scored at the same time."""
    scales: dict[str, float]
    """Measure -> the most it can be, where there is a most."""
    lower: frozenset[str]
    """Measures of which less is better."""

    def facts(self) -> list[str]:
        """How its numbers are made, a sentence each."""
        ...

    def warnings(self) -> list[str]:
        """Why its numbers must not be trusted, a sentence each."""
        ...

    def identity(self) -> str:
        """All that decides the scores beside the edit itself: settings, model, hashes of weights."""
        ...

    def score(self, row: EditRow) -> Score:
        """Numbers by name, and details a report may show.

        Raises:
            Unscored: this edit cannot be scored.
            UserError: none can before something is mended.
        """
        ...


class ScoreFolder:
    """Keeps what scorers said: ``<scorer>/<key>.json``, whole or absent.

    A key is made of the videos' bytes, the texts and the scorer's identity, not of paths: what changes is scored again,
    what was only moved is not. Of an edit that got no score nothing is kept: the next run tries again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hashes: dict[Path, str] = {}

    def collect(
        self, rows: Sequence[EditRow], scorer: Scorer, told: Callable[[EditRow], None] = lambda row: None
    ) -> list[Score]:
        """The scores of every row in order; those that are not there yet are made, at most ``workers`` at a time.

        A row without score has ``problem`` instead of numbers.

        Raises:
            UserError: the scorer cannot go on; what was scored is kept.
        """
        identity = scorer.identity()
        scores: dict[int, Score] = {}
        with ThreadPoolExecutor(scorer.workers) as pool:
            running: dict[Future[Score], int] = {}
            try:
                for place, row in enumerate(rows):
                    running[pool.submit(self._one, row, scorer, identity)] = place
                    if len(running) >= 2 * scorer.workers:  # so that nothing piles up, however many rows there are
                        self._take(running, scores, rows, told)
                while running:
                    self._take(running, scores, rows, told)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return [scores[place] for place in range(len(rows))]

    def _take(self, running: dict[Future[Score], int], scores: dict[int, Score], rows, told) -> None:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            place = running.pop(future)
            scores[place] = future.result()
            told(rows[place])

    def _one(self, row: EditRow, scorer: Scorer, identity: str) -> Score:
        try:
            path = self._folder / scorer.name / f"{self._key(row, identity)}.json"
            kept = _read(path)
            if kept is not None:
                return kept
            score = jsonable(scorer.score(row))
        except Unscored as error:
            return {"problem": " ".join(str(error).split())}
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(score))
        return score

    def _key(self, row: EditRow, identity: str) -> str:
        facts = {key: value for key, value in asdict(row).items() if key not in ("id", "method")}
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
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
