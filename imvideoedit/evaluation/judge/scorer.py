"""Scores edits with a judge, behind an endpoint or in this process."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from imvideoedit.common.errors import UserError
from imvideoedit.editing.prompts import shrunk
from imvideoedit.evaluation.edits.manifest import EditRow
from imvideoedit.evaluation.edits.score_store import Score, Unscored
from imvideoedit.evaluation.edits.videos import frames_of
from imvideoedit.video.images import load_rgb

try:
    from imvideoedit.clients.answers import ContentPart, Unanswered
    from imvideoedit.clients.endpoint import Endpoint
    from imvideoedit.clients.local import LocalModel
    from imvideoedit.clients.settings import EndpointSettings
    from imvideoedit.evaluation.judge.protocols import PROTOCOLS
except ImportError as error:
    raise UserError(f"a judge needs {error.name}; pip install 'imvideoedit[models]'") from error

UNTOUCHED = 2.0  # grey levels, mean over the shown frames; below that a video counts as unedited
LOCAL_TOKENS = 1000  # of a local model's answer
REFERENCES = ("reference", "first_frame")  # inputs that anchor the look


class JudgeScorer:
    """Asks a vision-language model about each edit, several times.

    Args:
        name: in files and tables.
        protocol: one of :data:`imvideoedit.evaluation.judge.protocols.PROTOCOLS`.
        repeats: independent readings of each edit at temperature 0; the prompt states the number of the reading.
        frames: number shown of each video; the protocol's if None.
        side: pixels of a frame's longer side, at most.
        local_model: folder or hub id of a model for this process; an endpoint if None.
        url, model: of the endpoint; from the environment if None, see ``EndpointSettings``.
        workers: number of concurrent questions.
        settings: others of :class:`EndpointSettings`.

    Raises:
        UserError: there is no such protocol, or a value is out of its range.
    """

    def __init__(
        self,
        name: str = "judge",
        protocol: str = "paper",
        repeats: int = 3,
        frames: int | None = None,
        side: int = 512,
        local_model: str | None = None,
        url: str | None = None,
        model: str | None = None,
        workers: int = 4,
        device: str | None = None,
        **settings: Any,
    ) -> None:
        if protocol not in PROTOCOLS:
            raise UserError(f"there is no protocol {protocol!r}; choose among {', '.join(PROTOCOLS)}")
        if min(repeats, workers, frames or 1, side) < 1:
            raise UserError(f"repeats, frames, side and workers of {name} must be at least 1")
        self.name, self.protocol, self.repeats = name, PROTOCOLS[protocol], repeats
        self._frames, self._side = frames or self.protocol.frames, side
        self._local, self._device = local_model, device
        self.workers = 1 if local_model else workers
        given = {"url": url, "model": model, **settings}
        self._settings = EndpointSettings(**{key: value for key, value in given.items() if value is not None})
        self._schema, self._system = self.protocol.schema(), self.protocol.system()

        self.kind = self.protocol.key
        self.scales = {one.key: one.highest for one in self.protocol.dimensions} | {"total": self.protocol.most}
        self.lower = frozenset({"spread"})
        self.reads = REFERENCES if self.protocol.reference else ()  # inputs that decide the scores

    def facts(self) -> list[str]:
        """Model, protocol, frames and readings."""
        return [
            f"{self.name}: {self.model_name}, protocol {self.protocol.key} (after {self.protocol.source}), "
            f"{self._frames} frames of each video, {self.repeats} readings at temperature 0; spread is the standard "
            "deviation of an edit's totals over them."
        ]

    def warnings(self) -> list[str]:
        """None; the suite ``judge_check`` validates a judge."""
        return []

    @property
    def model_name(self) -> str:
        """Name of the model."""
        return self._local or self._settings.model

    def identity(self) -> str:
        """Model, system prompt, readings, frames and their size."""
        return json.dumps([self.model_name, self._system, self.repeats, self._frames, self._side])

    def score(self, row: EditRow) -> Score:
        """Means of the points over the readings; ``total`` with its ``spread`` (standard deviation) over them.

        Raises:
            Unscored: a video cannot be read, or a reading got no usable answer; answers so far are cached.
            UserError: no question can be answered until the user fixes something.
        """
        assert row.edited is not None
        source, edited = (shrunk(frames_of(path, self._frames), self._side) for path in (row.source, row.edited))
        untouched = _difference(source, edited) < UNTOUCHED
        answers = [self._ask(row, source, edited, reading) for reading in range(self.repeats)]
        points = [self.protocol.points(answer, untouched) for answer in answers]
        totals = [self.protocol.total(own) for own in points]
        means = {key: float(np.mean([own[key] for own in points])) for key in points[0]}
        spread = float(np.std(totals, ddof=1)) if len(totals) > 1 else float("nan")
        return {**means, "total": float(np.mean(totals)), "spread": spread, "reasoning": answers[0].reasoning}

    def _ask(self, row: EditRow, source: list[np.ndarray], edited: list[np.ndarray], reading: int) -> Any:
        parts: list[ContentPart] = [
            f"Editing instruction: {row.instruction}",
            f"Reading {reading + 1} of {self.repeats}.",
        ]
        parts += self._reference(row)
        for title, frames in (("Original", source), ("Edited", edited)):
            for number, frame_HWC in enumerate(frames, 1):
                parts += [f"{title} video, frame {number} of {len(frames)}:", frame_HWC]
        try:
            return self._model.ask(parts, self._schema, self._system)
        except Unanswered as error:
            raise Unscored(f"{row.name}: {type(error).__name__.lower()}: {error}") from error
        except (OSError, ValueError) as error:
            if not self._local:
                raise
            raise UserError(f"the judge {self._local} cannot be used ({error})") from error

    def _reference(self, row: EditRow) -> list[ContentPart]:
        """The reference image that the edit had, where the protocol shows it."""
        given = next((row.inputs[name] for name in REFERENCES if name in row.inputs), None)
        if not self.protocol.reference or not isinstance(given, Path):
            return []
        try:
            image_HWC = load_rgb(given)
        except UserError as error:
            raise Unscored(f"{row.name}: {error}") from error
        return [self.protocol.reference, *shrunk([image_HWC], self._side)]

    @cached_property
    def _model(self) -> Endpoint | LocalModel:
        if self._local:
            return LocalModel(self._local, Path(self._settings.cache), self._device, LOCAL_TOKENS)
        return Endpoint(self._settings)


def _difference(source: list[np.ndarray], edited: list[np.ndarray]) -> float:
    """Mean absolute difference in grey levels; infinite if the videos differ in size or length."""
    if [frame.shape for frame in source] != [frame.shape for frame in edited]:
        return float("inf")
    pairs = zip(source, edited, strict=True)
    return float(np.mean([np.abs(ours.astype(np.int16) - theirs).mean() for theirs, ours in pairs]))


def second_judge(local_model: str | None = None, model: str | None = None, **settings: Any) -> JudgeScorer | None:
    """Another :class:`JudgeScorer`; None if neither model is named."""
    return JudgeScorer(local_model=local_model, model=model, **settings) if local_model or model else None
