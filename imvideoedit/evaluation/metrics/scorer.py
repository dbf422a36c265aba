"""The open metrics of an edited video and its source."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from imvideoedit.evaluation.edits.manifest import EditRow
from imvideoedit.evaluation.edits.score_store import Score
from imvideoedit.evaluation.edits.videos import EditVideos
from imvideoedit.evaluation.metrics.alignment import frame_alignment, preference, video_alignment
from imvideoedit.evaluation.metrics.frames import features
from imvideoedit.evaluation.metrics.network_scorer import NetworkScorer
from imvideoedit.evaluation.metrics.rebuild import rebuilt_pairs
from imvideoedit.evaluation.metrics.source import (
    colour_drift,
    outside_lpips,
    outside_psnr,
    outside_ssim,
    perceptual,
    round_trip,
    structural,
)
from imvideoedit.evaluation.metrics.temporal import flicker, neighbour_similarity, warped_error
from imvideoedit.evaluation.weights.networks import ClipEncoder
from imvideoedit.wan.backbone import Backbone, load_backbone

MEASURES: dict[str, tuple[str, ...]] = {
    "clip_text_frame": ("clip_l14",),
    "clip_text_video": ("clip_l14",),
    "clip_temporal": ("clip_l14",),
    "dino_temporal": ("dino_b16",),
    "pickscore": ("clip_l14", "pickscore"),
    "warped_error": ("flow",),
    "flicker": (),
    "colour_drift": (),
    "autoencoder_psnr": (),
    "ssim_structure_only": (),
    "lpips_structure_only": ("lpips",),
    "psnr_outside_mask": (),
    "ssim_outside_mask": (),
    "lpips_outside_mask": ("lpips",),
}


class OpenScorer(NetworkScorer):
    """The open metrics, see :mod:`imvideoedit.evaluation.metrics`; those of the text are NaN without a prompt,
    those outside the mask without one.

    Args:
        backbone: its autoencoder is measured by ``autoencoder_psnr``.
        measures, options: of :class:`NetworkScorer`.
    """

    name = kind = "open"
    needs = MEASURES
    scales = {"clip_temporal": 1.0, "dino_temporal": 1.0, "ssim_structure_only": 1.0, "ssim_outside_mask": 1.0}
    lower = frozenset({"warped_error", "flicker", "colour_drift", "lpips_structure_only", "lpips_outside_mask"})

    def __init__(self, measures: Sequence[str] | None = None, backbone: str = "nano", **options: Any) -> None:
        super().__init__(measures, **options)
        self._backbone_name = backbone

    def identity(self) -> str:
        """As :class:`NetworkScorer`, and the backbone."""
        return f"{super().identity()} {self._backbone_name}"

    def score(self, row: EditRow) -> Score:
        """As :class:`NetworkScorer`.

        Raises:
            Unscored: a video cannot be read, or the videos do not match.
            UserError: a network or the backbone cannot be loaded.
        """
        if "autoencoder_psnr" in self.measures:
            _ = self._backbone
        return super().score(row)

    def measure_calls(self, row: EditRow, videos: EditVideos) -> dict[str, Callable[[], float]]:
        """Measures of the edited video, its source and its prompt."""
        edited, source, mask = videos
        seen: dict[str, Tensor] = {}  # three measures share these features

        def clip() -> Tensor:
            if "clip" not in seen:
                seen["clip"] = features(edited, self.network("clip_l14").images)
            return seen["clip"]

        def with_text(measure: Callable[[Tensor], float], network: str) -> float:
            return measure(self.network(network).text(row.prompt)) if row.prompt else math.nan

        def pickscore(text: Tensor) -> float:
            model: ClipEncoder = self.network("pickscore")
            return preference(features(edited, model.images), text, model.scale)

        return {
            "clip_text_frame": lambda: with_text(lambda text: frame_alignment(clip(), text), "clip_l14"),
            "clip_text_video": lambda: with_text(lambda text: video_alignment(clip(), text), "clip_l14"),
            "clip_temporal": lambda: neighbour_similarity(clip()),
            "dino_temporal": lambda: neighbour_similarity(features(edited, self.network("dino_b16").images)),
            "pickscore": lambda: with_text(pickscore, "pickscore"),
            "warped_error": lambda: warped_error(edited, source, self.flow),
            "flicker": lambda: flicker(edited),
            "colour_drift": lambda: colour_drift(edited, source, mask),
            "autoencoder_psnr": lambda: round_trip(rebuilt_pairs(source, len(source), self._backbone)),
            "ssim_structure_only": lambda: structural(edited, source),
            "lpips_structure_only": lambda: perceptual(edited, source, self.network("lpips")),
            "psnr_outside_mask": lambda: outside_psnr(edited, source, mask),
            "ssim_outside_mask": lambda: outside_ssim(edited, source, mask),
            "lpips_outside_mask": lambda: outside_lpips(edited, source, mask, self.network("lpips")),
        }

    @property
    def _backbone(self) -> Backbone:
        return self.once("backbone", lambda: load_backbone(self._backbone_name, device=self.device, parts=("vae",)))
