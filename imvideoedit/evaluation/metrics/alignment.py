"""Alignment of frames with a text.

Legend: N frames, D channels; all vectors are of unit length.
"""

from torch import Tensor
from torch.nn import functional as F


def frame_alignment(features_ND: Tensor, text_D: Tensor) -> float:
    """100 times the mean cosine of frames and text (CLIPScore without its clipping at 0)."""
    return float(100 * (features_ND @ text_D).mean())


def video_alignment(features_ND: Tensor, text_D: Tensor) -> float:
    """100 times the cosine of the text and the mean of the frames' vectors (mean pooling, CLIP4Clip, Luo et al. 2021).

    EditVerseBench's own video alignment uses ViCLIP, so the two are not comparable.
    """
    return float(100 * F.normalize(features_ND.mean(0), dim=0) @ text_D)


def preference(features_ND: Tensor, text_D: Tensor, scale: float) -> float:
    """PickScore (Kirstain et al. 2023): the mean cosine times the model's own scale, about 100."""
    return float(scale * (features_ND @ text_D).mean())
