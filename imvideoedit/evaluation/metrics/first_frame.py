"""The metrics of edits by an edited first frame (LoRA-Edit, arXiv 2506.10082): its two similarities.

Legend: N frames, D channels.
"""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from imvideoedit.evaluation.edits.manifest import EditRow
from imvideoedit.evaluation.edits.videos import EditVideos
from imvideoedit.evaluation.metrics.frames import Frames, features, mean
from imvideoedit.evaluation.metrics.network_scorer import NetworkScorer
from imvideoedit.video.images import load_rgb

MEASURES: dict[str, tuple[str, ...]] = {
    "clip_first_frame": ("clip_l14",),
    "input_similarity": ("clip_l14",),
}
NOT_MEASURED = "deqa is not measured: its model exists only with code of its own, which is never run."


class FirstFrameScorer(NetworkScorer):
    """Similarity of all frames to the edited first frame, and of each frame to the source's.

    The first is NaN for an edit without an edited first frame. Arguments and errors are those of
    :class:`NetworkScorer`.
    """

    name = kind = "first_frame"
    needs = MEASURES
    scales = {"clip_first_frame": 1.0, "input_similarity": 1.0}

    def warnings(self) -> list[str]:
        """As :class:`NetworkScorer`, and that DeQA is not measured."""
        return [*super().warnings(), NOT_MEASURED]

    def measure_calls(self, row: EditRow, videos: EditVideos) -> dict[str, Callable[[], float]]:
        """Measures of the edited video, its first frame and its source."""
        seen: dict[str, Tensor] = {}

        def edited() -> Tensor:
            if "edited" not in seen:
                seen["edited"] = self._features(videos.edited)
            return seen["edited"]

        def to_first() -> float:
            given = row.inputs.get("first_frame")
            if not isinstance(given, Path):
                return float("nan")
            return similarity(edited(), self._features([load_rgb(given)]))

        return {
            "clip_first_frame": to_first,
            "input_similarity": lambda: similarity(edited(), self._features(videos.source)),
        }

    def _features(self, frames: Frames) -> Tensor:
        return features(frames, self.network("clip_l14").images)


def similarity(features_ND: Tensor, others_ND: Tensor) -> float:
    """Mean cosine of each frame with its counterpart, or with the single other one; for unit vectors, -1 to 1."""
    count = len(features_ND) if len(others_ND) == 1 else min(len(features_ND), len(others_ND))
    return mean((features_ND[:count] * others_ND[:count]).sum(1).tolist())
