"""Agreement of two lists of scores."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def agreement(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """Pearson's and Spearman's correlation, the mean absolute error, and the number of pairs.

    The correlations are NaN for fewer than three pairs, or if one list is constant.

    Args:
        first, second: on the same scale.
    """
    ours, theirs = np.asarray(first, float), np.asarray(second, float)
    varies = len(ours) > 2 and np.ptp(ours) > 0 and np.ptp(theirs) > 0
    return {
        "pearson": float(stats.pearsonr(ours, theirs).statistic) if varies else float("nan"),
        "spearman": float(stats.spearmanr(ours, theirs).statistic) if varies else float("nan"),
        "mae": float(np.abs(ours - theirs).mean()) if len(ours) else float("nan"),
        "pairs": len(ours),
    }


def in_order(means: Sequence[float]) -> bool:
    """Whether each mean is above the next; False for equal means."""
    return all(higher > lower for higher, lower in zip(means, means[1:], strict=False))
