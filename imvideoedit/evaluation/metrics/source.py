"""Preservation of the source: colours outside the edit, structure, and the error of the autoencoder alone."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import structural_similarity
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure as gaussian_ssim

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


def outside_psnr(edited: Frames, source: Frames, mask: Frames | None) -> float:
    """Mean PSNR (dB, at most 60) of frames that are black inside the mask, as FiVE-Bench has it; NaN without a mask.

    All pixels count, so that the value grows with the mask: it compares edits of one and the same mask alone.
    """
    pairs = _outside(edited, source, mask)
    return mean(psnr((ours.astype(np.float32) - theirs) ** 2) for ours, theirs in pairs)


def outside_ssim(edited: Frames, source: Frames, mask: Frames | None) -> float:
    """Mean SSIM of frames that are black inside the mask, by torchmetrics, as FiVE-Bench has it; NaN without a mask."""
    pairs = ((to_float(ours)[None], to_float(theirs)[None]) for ours, theirs in _outside(edited, source, mask))
    similar: Any = gaussian_ssim  # which gives more than a number when it is asked to
    return mean(float(similar(ours, theirs, data_range=1.0)) for ours, theirs in pairs)


def outside_lpips(
    edited: Frames, source: Frames, mask: Frames | None, distance: Callable[[Tensor, Tensor], Tensor]
) -> float:
    """Mean LPIPS of frames that are black inside the mask; NaN without a mask. FiVE-Bench has SqueezeNet's."""
    pairs = ((to_float(ours)[None], to_float(theirs)[None]) for ours, theirs in _outside(edited, source, mask))
    return mean(float(distance(ours, theirs)) for ours, theirs in pairs)


def round_trip(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """PSNR (dB, at most 60) of frames through the autoencoder: no edit in its latents keeps more.

    Args:
        pairs: each frame and its reconstruction.
    """
    return psnr(np.array([((ours.astype(np.float32) - theirs) ** 2).mean() for ours, theirs in pairs], float))


def _least_changed(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    change = np.abs(ours.astype(np.int16) - theirs).sum(2)
    return change <= np.quantile(change, KEPT_SHARE)


def _outside(edited: Frames, source: Frames, mask: Frames | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames that are black inside the mask; those that have nothing outside, and all without a mask, are left out."""
    for ours, theirs, bright in _triples(edited, source, mask):
        if bright is not None and not bright.all():
            outside = ~bright[..., None]
            yield ours * outside, theirs * outside


def _triples(
    edited: Frames, source: Frames, mask: Frames | None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    if mask is None:
        yield from ((ours, theirs, None) for ours, theirs in zip(edited, source, strict=False))
        return
    for ours, theirs, bright in zip(edited, source, mask, strict=False):
        yield ours, theirs, bright.mean(2) > 127
