"""Preservation of the source: colours outside the edit, structure, and the error of the autoencoder alone."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import structural_similarity
from torch import Tensor

from imvideoedit.evaluation.metrics.frames import Frames, mean, to_float
from imvideoedit.evaluation.nano.exact import psnr

KEPT_SHARE = 0.5  # share of pixels, those that changed least, that count as unedited without a mask


def colour_drift(edited: Frames, source: Frames, mask: Frames | None = None) -> float:
    """Change of the mean colour outside the edit, in CIEDE2000; 0 for no change.

    Args:
        mask: bright inside the edit; without one the half of the pixels that changed least counts as outside, and the
            value is a lower bound.
    """
    drifts = []
    for ours, theirs, bright in _triples(edited, source, mask):
        outside = ~bright if bright is not None else _least_changed(ours, theirs)
        if outside.any():
            means = [rgb2lab(frame)[outside].mean(0) for frame in (ours, theirs)]
            drifts.append(float(deltaE_ciede2000(*means)))
    return mean(drifts)


def structural(edited: Frames, source: Frames) -> float:
    """Mean SSIM against the source, 1 for the source itself: structure that was kept, not the quality of the edit."""
    return mean(
        float(structural_similarity(ours, theirs, channel_axis=2, data_range=255))
        for ours, theirs in zip(edited, source, strict=False)
    )


def perceptual(edited: Frames, source: Frames, distance: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Mean LPIPS against the source, 0 for the source itself: structure that was kept, not the quality of the edit."""
    return mean(
        float(distance(to_float(ours)[None], to_float(theirs)[None]))
        for ours, theirs in zip(edited, source, strict=False)
    )


def round_trip(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """PSNR (dB, at most 60) of frames through the autoencoder: no edit in its latents keeps more.

    Args:
        pairs: each frame and its reconstruction.
    """
    return psnr(np.array([((ours.astype(np.float32) - theirs) ** 2).mean() for ours, theirs in pairs], float))


def _least_changed(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    change = np.abs(ours.astype(np.int16) - theirs).sum(2)
    return change <= np.quantile(change, KEPT_SHARE)


def _triples(
    edited: Frames, source: Frames, mask: Frames | None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    if mask is None:
        yield from ((ours, theirs, None) for ours, theirs in zip(edited, source, strict=False))
        return
    for ours, theirs, bright in zip(edited, source, mask, strict=False):
        yield ours, theirs, bright.mean(2) > 127
