"""Randomly composed scenes, checked and described by language models."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_recipes.drafting import Writer
from data_recipes.models import Model, parallel_map, rejection
from data_recipes.plan import SceneSpec
from data_recipes.questions import (
    CHECK_SYSTEM,
    WRITE_SYSTEM,
    PairTexts,
    SceneCheck,
    check_question,
    write_question,
)
from data_recipes.rows import TEXTS, Row, digest, prompt_row, rejected
from data_recipes.vocabulary import FOLDER, Composition, read_vocabulary
from imvideoedit.clients.answers import Unanswered

ANSWER_TOKENS = {"check": 60, "write": 320}  # of the answers, about


class LanguageWriter(Writer):
    """Composes scenes, has one model check them and another write the texts of their pairs.

    Args:
        seed: of the compositions.
        checker, writer: the models; they may be the same.
        conditions: least and most conditions added to an environment.
        vocabulary: folder of the lists; the package's own if None.

    Raises:
        UserError: the lists are invalid.
    """

    def __init__(
        self,
        seed: int,
        checker: Model,
        writer: Model,
        conditions: Sequence[int] = (2, 4),
        vocabulary: str | None = None,
    ) -> None:
        self._seed, self._checker, self._writer = seed, checker, writer
        self._counts = (int(conditions[0]), int(conditions[1]))
        self._vocabulary = read_vocabulary(Path(vocabulary) if vocabulary else FOLDER)

    @property
    def models(self) -> dict[str, str]:
        return {"scene check": self._checker.name, "prompts": self._writer.name}

    def identity(self) -> Any:
        words = digest(dataclasses.asdict(self._vocabulary), self._counts, self._seed)
        questions = digest(CHECK_SYSTEM, WRITE_SYSTEM)
        return [self._checker.identity(), self._writer.identity(), words, questions]

    def estimate(self, rows: int) -> str:
        check = self._checker.estimate(rows, len(CHECK_SYSTEM) + 700, 0, ANSWER_TOKENS["check"])
        write = self._writer.estimate(rows, len(WRITE_SYSTEM) + 1500, 0, ANSWER_TOKENS["write"])
        return f"{check} at most; {write}"

    def write(self, shard: int, scenes: Sequence[SceneSpec]) -> list[Row]:
        compositions = [self._vocabulary.compose(self._seed, scene.index, self._counts) for scene in scenes]
        problems = parallel_map(self._check, compositions, self._checker.parallel)
        wanted = [
            (scene, composition, task, problem)
            for scene, composition, problem in zip(scenes, compositions, problems, strict=True)
            for task in scene.tasks
        ]
        return parallel_map(lambda item: self._row(*item), wanted, self._writer.parallel)

    def _check(self, composition: Composition) -> str:
        """Why a scene is to be rejected; empty if it is not."""
        try:
            verdict = self._checker.ask(check_question(composition), SceneCheck, CHECK_SYSTEM)
        except Unanswered as error:
            return rejection(error, "scene check")
        problem = verdict.problem()
        return f"scene {problem}: {verdict.reason}" if problem else ""

    def _row(self, scene: SceneSpec, composition: Composition, task: str, problem: str) -> Row:
        origin = {"index": scene.index, **dataclasses.asdict(composition)}
        name = digest(origin, task, self._writer.identity())
        row = prompt_row(digest(origin), composition.group, task, scene.size, json.dumps(origin), id=name)
        if problem:
            return rejected(row, problem)
        try:
            texts = self._writer.ask(write_question(composition, scene, task), PairTexts, WRITE_SYSTEM)
        except Unanswered as error:
            return rejected(row, rejection(error, "writer"))
        if not texts.suitable:
            return rejected(row, f"task does not suit the scene: {texts.reason}")
        written = texts.model_dump(include=set(TEXTS))
        return row | written | {"id": digest(name, written)}
