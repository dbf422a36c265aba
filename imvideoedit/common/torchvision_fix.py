"""The one fix for a torchvision that was compiled for another torch.

The package index's torchvision is a CUDA build. Beside a CPU-only torch its library does not load, so the operators
it would declare are missing: ``import torchvision`` fails on them, and with it timm, lightning, transformers' UMT5 and
diffusers' Wan classes, which import torchvision wherever it is installed. With the operators' schemas declared all of
these work; only calling the operators (non-maximum suppression of detection boxes) still raises, and nothing here does.
"""

import importlib.util
import sys
from pathlib import Path

_ARGUMENTS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_kept_alive: list[object] = []  # a torch.library.Library takes its operators with it when it is collected


def fix_torchvision() -> bool:
    """Declare torchvision's missing operators if its compiled library does not load; say whether that was needed.

    Where torchvision is absent or already imported this does nothing, not even import torch; a healthy one is left as
    it is.
    """
    if "torchvision" in sys.modules or _kept_alive:
        return False
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    import torch

    for library in Path(spec.origin).parent.glob("_C*"):
        try:
            torch.ops.load_library(str(library))
            return False
        except OSError:
            continue
    fragment = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        fragment.define(operator + _ARGUMENTS)
    _kept_alive.append(fragment)
    return True
