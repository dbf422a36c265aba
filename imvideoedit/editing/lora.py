"""Published LoRAs, such as few-step distillations of Wan, added to the frozen weights under an adapter."""

from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from diffusers.loaders import WanLoraLoaderMixin
from torch import Tensor

from imvideoedit.common.errors import UserError
from imvideoedit.methods.adapter_file import read_state

DOWN, UP, BIAS = ".lora_A.weight", ".lora_B.weight", ".lora_B.bias"


@torch.no_grad()
def fuse_lora(transformer: WanTransformer3DModel, path: Path | str, weight: float = 1.0) -> None:
    """Add ``weight * B A`` to every linear map that a file has a pair (A, B) for, and its biases.

    Call it after an adapter is loaded, which checks for the weights it was trained in.

    Args:
        path: safetensors with the keys of diffusers, or of the original model as CausVid, self-forcing and LightX2V
            publish them, or of musubi; their alphas are applied.

    Raises:
        UserError: missing or damaged file, or one that is not for this transformer. The transformer is then as it was.
    """
    deltas = _read(path)
    for name, delta in deltas.items():
        own = dict(transformer.named_parameters()).get(name)
        if own is None or own.shape != delta.shape:
            found = "lacks it" if own is None else f"has {list(own.shape)} there"
            raise UserError(f"{path} does not fit: {name} {list(delta.shape)}, but the backbone {found}; take its own")
    parameters = dict(transformer.named_parameters())
    for name, delta in deltas.items():
        own = parameters[name]
        own.copy_((own.float() + weight * delta.to(own.device)).to(own.dtype))


def _read(path: Path | str) -> dict[str, Tensor]:
    """What to add to each parameter, float32."""
    try:
        state = WanLoraLoaderMixin.lora_state_dict(read_state(path))
    except (ValueError, KeyError, IndexError) as error:
        raise UserError(f"{path} is no LoRA of a Wan transformer ({error}); take one that is") from error
    state = {name.removeprefix("transformer."): tensor.float() for name, tensor in state.items()}
    deltas = {
        name.removesuffix(DOWN) + ".weight": state[name.removesuffix(DOWN) + UP] @ down
        for name, down in state.items()
        if name.endswith(DOWN) and name.removesuffix(DOWN) + UP in state
    }
    deltas |= {name.removesuffix(BIAS) + ".bias": bias for name, bias in state.items() if name.endswith(BIAS)}
    if not deltas:
        raise UserError(f"{path} is no LoRA of a Wan transformer (it has no pair lora_A, lora_B); take one that is")
    return deltas
