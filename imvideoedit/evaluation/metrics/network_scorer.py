"""What scorers share that look with networks: the weights' folder, and one line for a damaged video."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from imvideoedit.common.errors import UserError
from imvideoedit.evaluation.edits.manifest import EditRow
from imvideoedit.evaluation.edits.scores import Score, Unscored
from imvideoedit.evaluation.edits.videos import Sized, open_edit
from imvideoedit.evaluation.metrics.flow import Flow, tvl1
from imvideoedit.evaluation.weights.files import NETWORKS, check, default_folder, is_random
from imvideoedit.evaluation.weights.networks import Clip, Dino, Lpips, Raft, aesthetic_head, musiq

FLOWS = {"raft": ("raft",), "tvl1": ()}


class NetworkScorer(ABC):
    """Scores by named measures, some of which need networks; one edit at a time.

    Args:
        measures: to take, in order; all where None.
        needs: measure -> networks it looks with; ``flow`` among them stands for the optical flow's.
        weights: folder of all weights; :func:`default_folder` where None.
        flow: ``raft``, or ``tvl1``, which needs no weights.
        device: the GPU if there is one.

    Raises:
        UserError: there is no such measure or flow.
    """

    name: str
    kind: str
    scales: dict[str, float] = {}
    lower: frozenset[str] = frozenset()
    workers = 1

    def __init__(
        self,
        measures: Sequence[str] | None,
        needs: dict[str, tuple[str, ...]],
        weights: Path | str | None,
        flow: str,
        device: str | None,
    ) -> None:
        unknown = [name for name in measures or () if name not in needs]
        if unknown or flow not in FLOWS:
            problem, known = (unknown[0], needs) if unknown else (flow, FLOWS)
            raise UserError(f"there is no {problem!r}; choose among {', '.join(known)}")
        self.measures = list(measures if measures is not None else needs)
        self.folder = Path(weights) if weights else default_folder()
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._flow_name = flow
        wanted = dict.fromkeys(network for measure in self.measures for network in needs[measure])
        self._networks = [name for network in wanted for name in (FLOWS[flow] if network == "flow" else (network,))]
        self._loaded: dict[str, Any] = {}

    def identity(self) -> str:
        """Measures, flow and the hashes of all weights.

        Raises:
            UserError: weights are missing or not the published ones.
        """
        return json.dumps([self.name, self.measures, self._flow_name, check(self.folder, self._networks)])

    def score(self, row: EditRow) -> Score:
        """A number for each measure; NaN where a video is too short for it, or a text is not known.

        Raises:
            Unscored: a video cannot be read, or the videos do not fit each other.
            UserError: a network cannot be loaded.
        """
        for network in self._networks:
            self.network(network)  # here, since what is wrong with one concerns all edits
        try:
            edited, source, mask = open_edit(row)
            takes = self.takes(row, edited, source, mask)
            return {name: takes[name]() for name in self.measures}
        except (UserError, ValueError) as error:
            raise Unscored(f"{row.name}: {error}") from error

    def facts(self) -> list[str]:
        """Measures and networks."""
        networks = f"networks: {', '.join(self._networks)}" if self._networks else "no networks"
        return [f"{self.name}: {', '.join(self.measures)}; {networks}; optical flow by {self._flow_name}."]

    def warnings(self) -> list[str]:
        """That the weights are random, where they are."""
        if self._networks and is_random(self.folder):
            return [f"The networks of {self.name} have random weights: its numbers only show that the machinery runs."]
        return []

    @abstractmethod
    def takes(self, row: EditRow, edited: Sized, source: Sized, mask: Sized | None) -> dict[str, Callable[[], float]]:
        """How each measure is taken of an edit."""

    @property
    def flow(self) -> Flow:
        """The optical flow."""
        return tvl1 if self._flow_name == "tvl1" else self.network("raft")

    def network(self, name: str) -> Any:
        """One of the networks, loaded at the first call.

        Raises:
            UserError: its library is not installed, or its weights do not fit.
        """
        files = [self.folder / file.name for file in NETWORKS[name]]
        load: dict[str, Callable[[], Any]] = {
            "raft": lambda: Raft(files[0], self.device),
            "dino_b16": lambda: Dino(files[0], self.device),
            "aesthetic": lambda: aesthetic_head(files[0]),
            "musiq": lambda: musiq(files[0], self.device),
            "lpips": lambda: Lpips(files[0], files[1], self.device),
        }
        return self.once(name, load.get(name, lambda: self._clip(name)))

    def _clip(self, name: str) -> Clip:
        return Clip(self.folder / name, self.folder / "clip_l14", self.device)

    def once(self, name: str, load: Callable[[], Any]) -> Any:
        """What ``load`` makes, made at the first call."""
        if name not in self._loaded:
            self._loaded[name] = load()
        return self._loaded[name]
