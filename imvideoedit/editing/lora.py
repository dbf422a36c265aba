"""Published LoRAs, such as few-step distillations of Wan, added to the frozen weights under an adapter."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from imvideoedit.common.errors import Note, UserError
from imvideoedit.common.tensor_file import is_finite
from imvideoedit.editing.lora_file import Change, LoraFile, read_lora
from imvideoedit.editing.lora_keys import is_of_images, kinds
from imvideoedit.wan.quantized import refuse_quantized


@torch.no_grad()
def fuse_lora(transformer: WanTransformer3DModel, path: Path | str, weight: float = 1.0) -> None:
    """Add ``weight * (alpha / rank) * B A`` to every map that a file has a pair (A, B) for, and its differences.

    Call it after an adapter is loaded, which checks for the weights it was trained in. A note says how many of the
    file's keys are used, and names those that are not.

    Args:
        path: safetensors with keys as in :mod:`imvideoedit.editing.lora_keys`. Alphas count where the file has them,
            among its tensors or in its metadata.
        weight: any number that float32 holds.

    Raises:
        UserError: missing or damaged file, one of which nothing is for this transformer, or of another formula. The
            transformer is then as it was.
    """
    refuse_quantized(transformer, f"{path} is added to")
    if not abs(weight) <= torch.finfo(torch.float32).max:  # NaN, too
        raise UserError(f"the weight of {path} is {weight}; give a finite number that float32 holds")
    file = read_lora(path)
    parameters = dict(transformer.named_parameters())
    changes = {name: change for name, change in file.changes.items() if not change.is_zero}
    fitting = {name: change for name, change in changes.items() if name in parameters}
    lacking = [key for name, change in changes.items() if name not in parameters for key in change.keys]
    if not fitting:
        raise UserError(
            f"{path}: none of its {file.count} keys changes a weight of this backbone "
            f"({kinds(lacking + file.unknown)}); take a LoRA of its transformer"
        )
    _check(fitting, parameters, weight, path)
    for name, change in fitting.items():
        parameters[name].copy_(_changed(parameters[name], change, weight))
    warnings.warn(Note(_told(file, lacking, path)), stacklevel=2)


def _told(file: LoraFile, lacking: Sequence[str], path: Path | str) -> str:
    """How many keys are used, and which are not."""
    images = [key for key in lacking if is_of_images(key)]
    others = [key for key in lacking if not is_of_images(key)]
    groups = {
        "of image-to-video models": images,
        "of weights that the backbone lacks": others,
        "of no LoRA": file.unknown,
    }
    unused = [f"{len(keys)} {what}: {kinds(keys)}" for what, keys in groups.items() if keys]
    used = f"{file.count - len(lacking) - len(file.unknown)} of {file.count} keys of {path} are used"
    return "; ".join([used + (", the others are not" if unused else ""), *unused])


def _check(changes: Mapping[str, Change], parameters: Mapping[str, Tensor], weight: float, path: Path | str) -> None:
    """Refuse what does not fit, or leads to values that are not finite, before anything is changed."""
    for name, change in changes.items():
        own, key = parameters[name], change.keys[0]
        if tuple(own.shape) != change.shape:
            raise UserError(
                f"{path} does not fit: {name} {list(change.shape)} (of {key}), but the backbone has {list(own.shape)} "
                "there; take a LoRA for this backbone"
            )
        # A bound first: a whole product for each weight would take as long as adding them.
        most = float(own.abs().max()) + abs(weight) * change.bound
        if not most < torch.finfo(own.dtype).max and not is_finite(_changed(own, change, weight)):
            raise UserError(f"{path} makes {name} infinite (of {key}); take an undamaged LoRA or less weight")


def _changed(own: Tensor, change: Change, weight: float) -> Tensor:
    return (own.float() + weight * change.value().to(own.device)).to(own.dtype)
