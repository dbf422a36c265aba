"""A transformer in one file, of GGUF or of safetensors, as it is published for ComfyUI; the rest is from a folder."""

from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from torch import Tensor, nn

from imvideoedit.common.errors import UserError
from imvideoedit.common.tensor_file import TensorFile, misfit
from imvideoedit.wan.bases import meta_transformer
from imvideoedit.wan.quantizations import GGUF
from imvideoedit.wan.quantized import gguf_config

PREFIXES = ("model.diffusion_model.", "diffusion_model.")  # of files that hold, or held, more than this model
SCALES = (".scale_weight", ".weight_scale")  # of a weight in fp8: one number, or one a row
UNUSED = (".scale_input", ".input_scale", "scaled_fp8")  # of kernels that compute in fp8


def load_single_file(
    path: Path | str,
    source: dict[str, Any],
    quantization: Any,
    dtype: torch.dtype,
    device: torch.device | None = None,
) -> WanTransformer3DModel:
    """The transformer in a file.

    Args:
        source: where diffusers loads the config from.
        quantization: diffusers' config of one, or None.
        dtype: of all that is not quantised.
        device: to load on; the CPU if None.

    Raises:
        UserError: the file is damaged, its package is missing, or its weights are not all of those that the config
            tells of, and no others.
    """
    config = dict(WanTransformer3DModel.load_config(**source, subfolder="transformer"))
    model = meta_transformer({key: value for key, value in config.items() if not key.startswith("_")})
    gguf = Path(path).suffix == GGUF
    if gguf:
        quantization = gguf_config(dtype)
    state = _own_names(_read_gguf(path) if gguf else _read_scaled(path))
    if wrong := misfit(model.state_dict(), _shapes(state)):
        raise UserError(f"{path} is not of backbone {source['pretrained_model_name_or_path']}: {wrong}; give its own")
    if gguf:
        state = {name: _for(model, name, value) for name, value in state.items()}
    where = {"config": source["pretrained_model_name_or_path"], "config_revision": source["revision"]}
    how = {"subfolder": "transformer", "torch_dtype": dtype, "quantization_config": quantization, "device": device}
    return WanTransformer3DModel.from_single_file(state, **where, **how)


def _read_gguf(path: Path | str) -> dict[str, Tensor]:
    from diffusers.models.model_loading_utils import load_gguf_checkpoint

    try:
        return load_gguf_checkpoint(path)
    except Exception as error:  # of gguf and numpy, which document none
        words = " ".join(str(error).split())
        raise UserError(f"{path} is no complete GGUF file ({words}); download it again") from error


def _read_scaled(path: Path | str) -> dict[str, Tensor]:
    """Tensors of a file of safetensors; those in fp8 with a scale, multiplied by it, in bfloat16."""
    file = TensorFile(path, "file of a backbone", "download it again")
    state = {name: file.tensor(name) for name in file.names if not name.endswith(UNUSED)}
    for name in [name for name in state if name.endswith(SCALES)]:
        weight = next(name.removesuffix(end) for end in SCALES if name.endswith(end)) + ".weight"
        scale = state.pop(name).float()
        if weight not in state or scale.numel() not in (1, len(state[weight])):
            raise UserError(f"{path} has a scale {name} of no weight; download it again")
        wide = state[weight].float()
        state[weight] = (wide * scale.reshape(-1, *(1,) * (wide.ndim - 1))).to(torch.bfloat16)
    return state


def _own_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """By diffusers' names; Wan's own are turned into these."""
    for prefix in PREFIXES:
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    own = "condition_embedder.time_proj.weight" in state
    return state if own else convert_wan_transformer_to_diffusers(state)


def _shapes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors' shapes in full: those of GGUF have bytes for values."""
    return {
        name: torch.empty(getattr(value, "quant_shape", value.shape), device="meta") for name, value in state.items()
    }


def _for(model: nn.Module, name: str, value: Tensor) -> Tensor:
    """A tensor of GGUF as the module takes it: linear maps alone compute with what is quantised."""
    module = model.get_submodule(name.rpartition(".")[0])
    if hasattr(value, "quant_shape") and not (isinstance(module, nn.Linear) and name.endswith(".weight")):
        from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

        return dequantize_gguf_tensor(value)
    return value
