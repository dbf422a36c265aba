"""The base of scorers that use networks: loads weights once, and reports a damaged video in one line."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from imvideoedit.common.errors import UserError
from imvideoedit.evaluation.edits.manifest import EditRow
from imvideoedit.evaluation.edits.score_store import Score, Unscored
from imvideoedit.evaluation.edits.videos import EditVideos, open_edit
from imvideoedit.evaluation.metrics.flow import Flow, tvl1
from imvideoedit.evaluation.weights.files import NETWORKS, check, default_folder, is_random
from imvideoedit.evaluation.weights.networks import ClipEncoder, Dino, Lpips, Raft, aesthetic_head, musiq

FLOWS = {"raft": ("raft",), "tvl1": ()}


class NetworkScorer(ABC):
    """Scores by named measures, some of which need networks; one edit at a time.

    Attributes:
        needs: measure -> networks it uses; ``flow`` stands for the network of the optical flow.

    Args:
        measures: names in order; all if None.
        weights: folder of all weights; :func:`default_folder` if None.
        flow: ``raft``, or ``tvl1``, which needs no weights.
        device: the GPU if None and there is one.

    Raises:
        UserError: there is no such measure or flow.
    """

    name: str
    kind: str
    needs: ClassVar[dict[str, tuple[str, ...]]]
    scales: dict[str, float] = {}
    lower: frozenset[str] = frozenset()
    workers = 1

    def __init__(
        self,
        measures: Sequence[str] | None = None,
        weights: Path | str | None = None,
        flow: str = "raft",
        device: str | None = None,
    ) -> None:
        unknown = [name for name in measures or () if name not in self.needs]
        if unknown or flow not in FLOWS:
            problem, known = (unknown[0], self.needs) if unknown else (flow, FLOWS)
            raise UserError(f"there is no {problem!r}; choose among {', '.join(known)}")
        self.measures = list(measures if measures is not None else self.needs)
        self.folder = Path(weights) if weights else default_folder()
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._flow_name = flow
        wanted = dict.fromkeys(network for measure in self.measures for network in self.needs[measure])
        self._networks = [name for network in wanted for name in (FLOWS[flow] if network == "flow" else (network,))]
        self._loaded: dict[str, Any] = {}

    def identity(self) -> str:
        """Measures, flow and the hashes of all weights.

        Raises:
            UserError: weights are missing, or are not the published ones.
        """
        return json.dumps([self.name, self.measures, self._flow_name, check(self.folder, self._networks)])

    def score(self, row: EditRow) -> Score:
        """A value for each measure; NaN if a video is too short for it, or a text is missing.

        Raises:
            Unscored: a video cannot be read, or the videos do not match.
            UserError: a network cannot be loaded.
        """
        for network in self._networks:
            self.network(network)  # loaded first: a broken network concerns all edits
        try:
            calls = self.measure_calls(row, open_edit(row))
            return {name: calls[name]() for name in self.measures}
        except (UserError, ValueError) as error:
            raise Unscored(f"{row.name}: {error}") from error

    def facts(self) -> list[str]:
        """Measures and networks."""
        networks = f"networks: {', '.join(self._networks)}" if self._networks else "no networks"
        return [f"{self.name}: {', '.join(self.measures)}; {networks}; optical flow by {self._flow_name}."]

    def warnings(self) -> list[str]:
        """That the weights are random, if they are."""
        if self._networks and is_random(self.folder):
            return [f"The networks of {self.name} have random weights: its values are meaningless."]
        return []

    @abstractmethod
    def measure_calls(self, row: EditRow, videos: EditVideos) -> dict[str, Callable[[], float]]:
        """Measure -> a call that computes it for this edit."""

    @property
    def flow(self) -> Flow:
        """The optical flow."""
        return tvl1 if self._flow_name == "tvl1" else self.network("raft")

    def network(self, name: str) -> Any:
        """A network, loaded at the first call.

        Raises:
            UserError: its library is not installed, or its weights do not match.
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

    def _clip(self, name: str) -> ClipEncoder:
        return ClipEncoder(self.folder / name, self.folder / "clip_l14", self.device)

    def once(self, name: str, load: Callable[[], Any]) -> Any:
        """The result of ``load``, called once per name."""
        if name not in self._loaded:
            self._loaded[name] = load()
        return self._loaded[name]
