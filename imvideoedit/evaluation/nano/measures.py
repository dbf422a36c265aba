"""All measures of one edited video against the exact answer.

Regions: ``changed`` (pixels the exact edit changes), ``kept`` (the others) and ``frame`` (all). NaN if a region is
empty or the video too short for a measure.
"""

from typing import Any

import numpy as np
import torch
from skimage.color import deltaE_ciede2000, rgb2lab
from torchmetrics.functional.image import structural_similarity_index_measure

from imvideoedit.evaluation.nano.exact import psnr, region_psnr
from imvideoedit.evaluation.nano.tracks import motion_fidelity
from imvideoedit.world.scenes import Scene

REGIONS = ("changed", "kept", "frame")
STILL = 4.0  # squared grey levels, added to the energy of the frame differences so that still videos do not divide by 0
ARTIFACT = 20.0  # CIEDE2000 from the exact answer and from the source


def measure(
    edited: np.ndarray, exact: np.ndarray, source: np.ndarray, mask: np.ndarray, scene: Scene
) -> dict[str, Any]:
    """Compare one edited video with its exact answer.

    Args:
        edited, exact, source: uint8 ``[F, H, W, 3]``.
        mask: bool ``[F, H, W]``, the changed pixels.
        scene: the scene that ``exact`` shows.

    Returns:
        ``*_psnr`` (dB), ``*_ssim`` and ``*_color`` (CIEDE2000, 0 for equal) of each region; ``remaining``, the
        root mean square error in the changed region over that of copying the source; ``motion`` in [0, 1] (see
        ``motion_fidelity``); ``difference_error``, the energy of the error of the frame differences over the energy
        of the exact ones (1 for a frozen video); ``artifact_rate``, the share of pixels that look like neither the
        exact answer nor the source; and ``psnr_by_frame``, the PSNR (dB) of each of the F frames.

    Raises:
        ValueError: the shapes differ.
    """
    rows: dict[str, Any] = {**region_psnr(edited, exact, mask), "psnr_by_frame": _psnr_by_frame(edited, exact)}
    near = _color_distance(edited, exact, (edited != exact).any(-1))  # equal colours are 0 apart
    maps = {"ssim": _ssim_map(edited, exact), "color": near}
    regions = dict(zip(REGIONS, (mask, ~mask, np.ones_like(mask)), strict=True))
    for name, values in maps.items():
        rows |= {f"{region}_{name}": _mean(values[where]) for region, where in regions.items()}
    rows["remaining"] = _rms(edited, exact, mask) / max(_rms(source, exact, mask), 1e-9)
    rows["motion"] = motion_fidelity(edited, exact, scene) if len(exact) > 1 else float("nan")
    rows["difference_error"] = _difference_error(edited, exact)
    wrong = near > ARTIFACT
    rows["artifact_rate"] = float((_color_distance(edited, source, wrong) > ARTIFACT).mean())
    return rows


def _psnr_by_frame(edited: np.ndarray, exact: np.ndarray) -> list[float]:
    return [psnr((ours.astype(np.float32) - right) ** 2) for ours, right in zip(edited, exact, strict=True)]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def _rms(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    return float(np.sqrt(_mean((a[where].astype(np.float32) - b[where]) ** 2)))


def _color_distance(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> np.ndarray:
    """CIEDE2000 of the pixels in ``where``, 0 elsewhere: ``[F, H, W]``."""
    distance = np.zeros(where.shape)
    distance[where] = deltaE_ciede2000(rgb2lab(a[where]), rgb2lab(b[where]))
    return distance


def _ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity around every pixel, mean over channels, ``[F, H, W]``."""
    first, second = (torch.from_numpy(video).permute(0, 3, 1, 2).float() for video in (a, b))
    _, full = structural_similarity_index_measure(
        first, second, data_range=255.0, reduction="none", return_full_image=True
    )
    return full.mean(1).numpy()


def _difference_error(edited: np.ndarray, exact: np.ndarray) -> float:
    if len(exact) < 2:
        return float("nan")
    ours, right = (np.diff(video.astype(np.float32), axis=0) for video in (edited, exact))
    return float(((ours - right) ** 2).mean() / ((right**2).mean() + STILL))
