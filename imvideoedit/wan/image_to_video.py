"""The nano image-to-video backbone: the bundled text-to-video one with further input channels, and a change of weights.

The change is small: of each matrix whole numbers of 8 bits, with a scale a row, whose error is below that of half
precision in the weights themselves; of all else half precision.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from imvideoedit.common.files import replacing

MASK_CHANNELS = 4  # of Wan's mask: frames of a latent frame
SCALE = ".scale"


def widened_config(config: Any) -> dict[str, Any]:
    """A text-to-video transformer's settings with the input channels of image-to-video: noise, mask, video."""
    own = {key: value for key, value in config.items() if not key.startswith("_")}
    return own | {"in_channels": 2 * own["out_channels"] + MASK_CHANNELS}


def widened(transformer: WanTransformer3DModel) -> WanTransformer3DModel:
    """The same model with further input channels, which it does not use yet: their columns are zero."""
    own: Any = transformer
    wide: Any = WanTransformer3DModel(**widened_config(own.config)).to(own.dtype)
    state = own.state_dict()
    columns = torch.zeros_like(wide.patch_embedding.weight)
    columns[:, : own.config.in_channels] = state["patch_embedding.weight"]
    wide.load_state_dict(state | {"patch_embedding.weight": columns})
    return wide


def save_change(start: WanTransformer3DModel, end: WanTransformer3DModel, path: Path) -> None:
    """Write what leads from one transformer to another of the same shapes."""
    before, change = start.state_dict(), {}
    for name, weight in end.state_dict().items():
        delta = weight.float() - before[name].float()
        if delta.ndim == 2:
            scale_R1 = delta.abs().amax(1, keepdim=True).clamp(min=1e-6) / 127
            change[name] = (delta / scale_R1).round().to(torch.int8)
            change[name + SCALE] = scale_R1.float()
        else:
            change[name] = delta.half()
    with replacing(path) as new:
        save_file({name: value.contiguous() for name, value in change.items()}, new)


@torch.no_grad()
def changed(transformer: WanTransformer3DModel, path: Path) -> WanTransformer3DModel:
    """A text-to-video transformer, :func:`widened`, with the change that :func:`save_change` wrote.

    Raises:
        KeyError: the file is of other weights.
    """
    wide = widened(transformer)
    change, state = load_file(path), wide.state_dict()
    for name, value in change.items():
        if not name.endswith(SCALE):
            delta: Tensor = value.float() * change[name + SCALE] if value.dtype == torch.int8 else value.float()
            state[name].copy_(state[name].float() + delta)
    return wide
