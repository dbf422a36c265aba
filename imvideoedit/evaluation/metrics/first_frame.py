"""The metrics of edits by an edited first frame (LoRA-Edit, arXiv 2506.10082): two similarities, and quality by DeQA.

Legend: N frames, D channels.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from imvideoedit.common.errors import UserError
from imvideoedit.evaluation.edits.manifest import EditRow
from imvideoedit.evaluation.edits.videos import EditVideos
from imvideoedit.evaluation.metrics.frames import Frames, features, mean
from imvideoedit.evaluation.metrics.network_scorer import NetworkScorer
from imvideoedit.evaluation.weights.files import hash_file
from imvideoedit.video.images import load_rgb

MEASURES: dict[str, tuple[str, ...]] = {
    "clip_first_frame": ("clip_l14",),
    "input_similarity": ("clip_l14",),
    "deqa": (),
}
NOT_MEASURED = "deqa was not measured: its weights are not here; give suite.scorers.first_frame.deqa=FOLDER."


class FirstFrameScorer(NetworkScorer):
    """Similarity of all frames to the edited first frame, of each frame to the source's, and image quality.

    The first is NaN for an edit without an edited first frame, the last one without its weights.

    Args:
        deqa: folder of DeQA-Score as its publishers offer it (``zhiyuanyou/DeQA-Score-Mix3``). It holds code of its
            own, which is run.
        measures, options: of :class:`NetworkScorer`.

    Raises:
        UserError: there is no such folder or measure.
    """

    name = kind = "first_frame"
    needs = MEASURES
    scales = {"clip_first_frame": 1.0, "input_similarity": 1.0, "deqa": 5.0}

    def __init__(self, measures: Sequence[str] | None = None, deqa: Path | str | None = None, **options: Any) -> None:
        super().__init__(measures, **options)
        self._deqa = None if deqa is None else Path(deqa)
        if self._deqa is not None and not (self._deqa / "config.json").is_file():
            raise UserError(f"deqa={deqa} holds no model (config.json is missing); download DeQA-Score-Mix3 there")

    def identity(self) -> str:
        """As :class:`NetworkScorer`, and the files of DeQA."""
        files = [] if self._deqa is None else sorted(path for path in self._deqa.iterdir() if path.is_file())
        return " ".join([super().identity(), *(f"{path.name}:{hash_file(path)}" for path in files)])

    def warnings(self) -> list[str]:
        """As :class:`NetworkScorer`, and that DeQA is missing."""
        missing = "deqa" in self.measures and self._deqa is None
        return [*super().warnings(), *([NOT_MEASURED] if missing else [])]

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
            "deqa": lambda: float("nan") if self._deqa is None else self._quality(videos.edited, self._deqa),
        }

    def _features(self, frames: Frames) -> Tensor:
        return features(frames, self.network("clip_l14").images)

    def _quality(self, frames: Frames, folder: Path) -> float:
        score = self.once("deqa", lambda: load_deqa(folder, self.device))
        return mean(score(frame_HWC) for frame_HWC in frames)


def similarity(features_ND: Tensor, others_ND: Tensor) -> float:
    """Mean cosine of each frame with its counterpart, or with the single other one; for unit vectors, -1 to 1."""
    count = len(features_ND) if len(others_ND) == 1 else min(len(features_ND), len(others_ND))
    return mean((features_ND[:count] * others_ND[:count]).sum(1).tolist())


def load_deqa(folder: Path, device: str) -> Callable[[np.ndarray], float]:
    """DeQA-Score (You et al. 2025): an image's quality, 1 to 5, of uint8 ``[H, W, 3]``.

    Raises:
        UserError: it cannot be loaded, as by a version of transformers that its code was not written for.
    """
    from transformers import AutoModelForCausalLM

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, trust_remote_code=True, local_files_only=True, attn_implementation="eager", dtype="auto"
        )
        model = model.to(device).eval()
    except Exception as error:  # code of others, which may fail in any way
        why = " ".join(str(error).split())[:200]
        raise UserError(f"deqa={folder} cannot be loaded ({why}); its code names the transformers it needs") from error
    return lambda frame_HWC: float(model.score([Image.fromarray(frame_HWC)])[0])
