"""The nano image-to-video backbone: the bundled text-to-video one with further input channels, and a change of weights.

The change is small: of each matrix whole numbers of 8 bits, with a scale a row, whose error is below that of half
precision in the weights themselves; of all else half precision.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file
from torch import Tensor, nn

from imvideoedit.common.files import replacing
from imvideoedit.common.tensor_file import TensorFile

MASK_CHANNELS = 4  # of Wan's mask: frames of a latent frame
SCALE = ".scale"


def widened_config(config: Any) -> dict[str, Any]:
    """A text-to-video transformer's settings with the input channels of image-to-video: noise, mask, video."""
    own = {key: value for key, value in config.items() if not key.startswith("_")}
    return own | {"in_channels": 2 * own["out_channels"] + MASK_CHANNELS}


@torch.no_grad()
def widen(transformer: WanTransformer3DModel) -> None:
    """Give a text-to-video model further input channels, which it does not use yet: their columns are zero."""
    own: Any = transformer
    settings, before = widened_config(own.config), own.patch_embedding
    wide: Any = nn.Conv3d(settings["in_channels"], before.out_channels, before.kernel_size, before.stride)
    wide = wide.to(before.weight).requires_grad_(before.weight.requires_grad)
    wide.weight.zero_()[:, : before.in_channels] = before.weight
    wide.bias.copy_(before.bias)
    own.patch_embedding = wide
    own.register_to_config(in_channels=settings["in_channels"])


def save_change(start: WanTransformer3DModel, end: WanTransformer3DModel, path: Path) -> None:
    """Write what leads from one transformer to another of the same shapes."""
    before, found = start.state_dict(), {}
    for name, weight in end.state_dict().items():
        delta = weight.float() - before[name].float()
        if delta.ndim == 2:
            scale_R1 = delta.abs().amax(1, keepdim=True).clamp(min=1e-6) / 127
            found[name] = (delta / scale_R1).round().to(torch.int8)
            found[name + SCALE] = scale_R1.float()
        else:
            found[name] = delta.half()
    with replacing(path) as new:
        save_file({name: value.contiguous() for name, value in found.items()}, new)


@torch.no_grad()
def apply_change(transformer: WanTransformer3DModel, path: Path) -> None:
    """Make a text-to-video transformer, in place, the image-to-video one that :func:`save_change` wrote.

    Raises:
        KeyError: the file is of other weights.
    """
    widen(transformer)
    found, state = TensorFile(path, "change of weights").tensors(), transformer.state_dict()
    for name, value in found.items():
        if not name.endswith(SCALE):
            delta: Tensor = value.float() * found[name + SCALE] if value.dtype == torch.int8 else value.float()
            state[name].copy_(state[name].float() + delta)
