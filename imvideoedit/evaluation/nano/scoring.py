"""One score of 0 to 100 from exact measures, in the paper's four parts.

Every part is a share in [0, 1], monotone in its measures, times its points:

- **instruction adherence (30)**: 1 - remaining. ``remaining`` is the error in the changed region over that of copying
  the source, so copying (or worse) gets 0 and the exact answer 1.
- **temporal consistency (30)**: the mean of 1 / (1 + difference error), which is 1/2 for a frozen video and falls with
  flicker, and of the motion fidelity of the objects. Single frames have no such part; the others make up the 100.
- **visual fidelity (25)**: the mean of the frame's SSIM and of the kept region's PSNR, from 0 at 15 dB to 1 at 35 dB.
- **artifact absence (15)**: 1 - artifact rate / 0.2, at least 0.

A judge gives few points for the quality of a video that was not edited. So the last three parts count ``UNEDITED`` of
their points at adherence 0, rising to all of them at adherence ``EDITED``.
"""

import math

WEIGHTS = {"adherence": 30.0, "temporal": 30.0, "fidelity": 25.0, "artifacts": 15.0}
UNEDITED, EDITED = 0.4, 0.5
PSNR_RANGE = (15.0, 35.0)  # dB of the kept region
WORST_ARTIFACT_RATE = 0.2


def parts(measures: dict[str, float]) -> dict[str, float]:
    """Points of one video in each part, at most ``WEIGHTS``; NaN for the temporal part of a single frame."""
    adherence = _clip(1 - measures["remaining"])
    credit = UNEDITED + (1 - UNEDITED) * min(adherence / EDITED, 1.0)
    shares = {
        "temporal": credit * _mean(1 / (1 + measures["difference_error"]), measures["motion"]),
        "fidelity": credit * _mean(_clip(measures["frame_ssim"]), _kept(measures["kept_psnr"])),
        "artifacts": credit * _clip(1 - measures["artifact_rate"] / WORST_ARTIFACT_RATE),
    }
    return {name: WEIGHTS[name] * share for name, share in {"adherence": adherence, **shares}.items()}


def overall(points: dict[str, float]) -> float:
    """0 to 100: the sum of the known parts over the sum of their maxima."""
    known = {name: value for name, value in points.items() if not math.isnan(value)}
    return 100 * sum(known.values()) / sum(WEIGHTS[name] for name in known)


def _clip(share: float) -> float:
    return min(max(share, 0.0), 1.0)


def _kept(psnr: float) -> float:
    low, high = PSNR_RANGE
    return psnr if math.isnan(psnr) else _clip((psnr - low) / (high - low))


def _mean(*shares: float) -> float:
    """Mean of the known shares; NaN if the first is NaN."""
    if math.isnan(shares[0]):
        return shares[0]
    known = [share for share in shares if not math.isnan(share)]
    return sum(known) / len(known)
