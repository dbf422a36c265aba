"""Published LoRAs, such as few-step distillations of Wan, added to the frozen weights under an adapter."""

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from imvideoedit.common.errors import UserError
from imvideoedit.common.tensor_file import is_finite
from imvideoedit.editing.lora_file import Change, read_changes
from imvideoedit.wan.quantized import refuse_quantized


@torch.no_grad()
def fuse_lora(transformer: WanTransformer3DModel, path: Path | str, weight: float = 1.0) -> None:
    """Add ``weight * (alpha / rank) * B A`` to every map that a file has a pair (A, B) for, and its differences.

    Call it after an adapter is loaded, which checks for the weights it was trained in.

    Args:
        path: safetensors with the keys of diffusers, of PEFT, or of the original model as CausVid, self-forcing,
            LightX2V, DiffSynth and kohya's scripts publish them. Alphas count where the file has them, among its
            tensors or in its metadata.
        weight: any number that float32 holds.

    Raises:
        UserError: missing or damaged file, one that is not for this transformer, or of which a part cannot be used. The
            transformer is then as it was.
    """
    refuse_quantized(transformer, f"{path} is added to")
    if not abs(weight) <= torch.finfo(torch.float32).max:  # NaN, too
        raise UserError(f"the weight of {path} is {weight}; give a finite number that float32 holds")
    changes = read_changes(path)
    parameters = dict(transformer.named_parameters())
    _check(changes, parameters, weight, path)
    for name, change in changes.items():
        parameters[name].copy_(_changed(parameters[name], change, weight))


def _check(changes: Mapping[str, Change], parameters: Mapping[str, Tensor], weight: float, path: Path | str) -> None:
    """Refuse what does not fit, or leads to values that are not finite, before anything is changed."""
    for name, change in changes.items():
        own = parameters.get(name)
        if own is None or tuple(own.shape) != change.shape:
            found = "lacks it" if own is None else f"has {list(own.shape)} there"
            raise UserError(
                f"{path} does not fit: {name} {list(change.shape)} (of {change.key}), but the backbone {found}; "
                "take a LoRA for this backbone"
            )
        # A bound first: a whole product for each weight would take as long as adding them.
        most = float(own.abs().max()) + abs(weight) * change.bound
        if not most < torch.finfo(own.dtype).max and not is_finite(_changed(own, change, weight)):
            raise UserError(f"{path} makes {name} infinite (of {change.key}); take an undamaged LoRA or less weight")


def _changed(own: Tensor, change: Change, weight: float) -> Tensor:
    return (own.float() + weight * change.value().to(own.device)).to(own.dtype)
