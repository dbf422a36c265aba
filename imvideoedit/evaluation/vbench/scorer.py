"""VBench's six dimensions of an edited video."""

from collections.abc import Callable

from imvideoedit.evaluation.edits.manifest import EditRow
from imvideoedit.evaluation.edits.videos import EditVideos
from imvideoedit.evaluation.metrics.frames import features
from imvideoedit.evaluation.metrics.network_scorer import NetworkScorer
from imvideoedit.evaluation.vbench.dimensions import (
    aesthetic_quality,
    consistency,
    dynamic_degree,
    imaging_quality,
    motion_smoothness,
)

DIMENSIONS: dict[str, tuple[str, ...]] = {
    "subject_consistency": ("dino_b16",),
    "background_consistency": ("clip_b32",),
    "motion_smoothness": ("flow",),
    "dynamic_degree": ("flow",),
    "aesthetic_quality": ("clip_l14", "aesthetic"),
    "imaging_quality": ("musiq",),
}


class VBenchScorer(NetworkScorer):
    """The six dimensions, each in [0, 1]."""

    name = kind = "vbench"
    needs = DIMENSIONS
    scales = dict.fromkeys(DIMENSIONS, 1.0)

    def measure_calls(self, row: EditRow, videos: EditVideos) -> dict[str, Callable[[], float]]:
        """Measures of the edited video alone."""
        edited = videos.edited
        return {
            "subject_consistency": lambda: consistency(features(edited, self.network("dino_b16").images)),
            "background_consistency": lambda: consistency(features(edited, self.network("clip_b32").images)),
            "motion_smoothness": lambda: motion_smoothness(edited, self.flow),
            "dynamic_degree": lambda: dynamic_degree(edited, edited.fps, self.flow),
            "aesthetic_quality": lambda: aesthetic_quality(
                edited, self.network("clip_l14").images, self.network("aesthetic")
            ),
            "imaging_quality": lambda: imaging_quality(edited, self.network("musiq")),
        }
