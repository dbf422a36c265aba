"""ComfyUI's images and masks, and ours; and out of its inference mode.

Shapes: F frames, H W pixels.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imvideoedit.common.errors import UserError, notes_in_one_line


def to_video(images_FHWC: Tensor, name: str) -> np.ndarray:
    """uint8 ``[F, H, W, 3]`` of an IMAGE, ``[F, H, W, 3]`` in 0 to 1.

    Args:
        name: of the node's input, for the error.

    Raises:
        UserError: it is empty, has other channels, or holds NaN or infinite values.
    """
    if images_FHWC.ndim != 4 or images_FHWC.shape[3] != 3 or not images_FHWC.numel():
        raise UserError(f"{name} is {list(images_FHWC.shape)}; give images of three colours: frames, height, width, 3")
    _check_finite(images_FHWC, name)
    return (images_FHWC.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def to_image(images_FHWC: Tensor, name: str) -> np.ndarray:
    """uint8 ``[H, W, 3]`` of an IMAGE that is one picture.

    Raises:
        UserError: it is several, or what :func:`to_video` raises.
    """
    frames = to_video(images_FHWC, name)
    if len(frames) != 1:
        raise UserError(f"{name} is {len(frames)} images; give one")
    return frames[0]


def to_mask(mask_FHW: Tensor, name: str) -> np.ndarray:
    """float32 ``[F, H, W]`` of a MASK in 0 to 1, or ``[H, W]`` where it is one for all frames.

    Raises:
        UserError: it is empty, no mask or black in every frame, or holds NaN or infinite values.
    """
    if mask_FHW.ndim not in (2, 3) or not mask_FHW.numel():
        raise UserError(f"{name} is {list(mask_FHW.shape)}; give a mask: frames, height, width")
    _check_finite(mask_FHW, name)
    if not (mask_FHW > 0).any():  # as ComfyUI's Load Image makes of a picture without transparency
        raise UserError(f"{name} is black in every frame; paint white what may change")
    mask = mask_FHW.float().cpu().numpy()
    return mask[0] if mask.ndim == 3 and len(mask) == 1 else mask


def to_images(video_FHWC: np.ndarray) -> Tensor:
    """An IMAGE of frames, uint8 ``[F, H, W, 3]``."""
    return torch.from_numpy(video_FHWC).float() / 255


def _check_finite(values: Tensor, name: str) -> None:
    if not torch.isfinite(values).all():
        raise UserError(f"{name} holds NaN or infinite values; check the node that it comes from")


def outside_inference(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run a node as our other commands run: ComfyUI's inference mode makes weights that can never be changed again."""

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with torch.inference_mode(False), torch.no_grad(), notes_in_one_line():
            return function(*args, **kwargs)

    return called
