"""Loading a backbone's transformer, completely or not at all, and what goes wrong meanwhile, in one line."""

import contextlib
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from diffusers.utils import logging
from torch import nn

from imvideoedit.common.errors import UserError
from imvideoedit.common.tensor_file import first_not_finite
from imvideoedit.layers.quantized import is_packed
from imvideoedit.wan.identity import Origin, folder_of, name_by_files
from imvideoedit.wan.locations import default_device, remedy
from imvideoedit.wan.quantizations import ON_DEVICE
from imvideoedit.wan.quantized import is_quantized, quantization_config
from imvideoedit.wan.single_file import load_single_file


def check_finite(part: nn.Module, name: str) -> None:
    """See that a part of the backbone ``name`` has finite weights.

    Raises:
        UserError: it has not.
    """
    plain = {place: each for place, each in part.named_parameters() if not is_packed(each)}
    if odd := first_not_finite(plain):
        raise UserError(f"backbone {name!r} holds NaN or infinite values at {odd}; {remedy(name)}")


def load_transformer(name: str, **options: Any) -> WanTransformer3DModel:
    """A transformer of which every weight was in the files, and none of the files is left over.

    Args:
        name: of the backbone, for the error.
        options: of diffusers' ``from_pretrained``, which fills in what is missing and ignores what it does not know.

    Raises:
        UserError: weights are missing or unknown.
    """
    options |= {"subfolder": "transformer", "output_loading_info": True}
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # diffusers warns of what is said here
    try:
        transformer, found = WanTransformer3DModel.from_pretrained(**options)
    finally:
        logging.set_verbosity(verbosity)
    ignored = re.compile("|".join(WanTransformer3DModel._keys_to_ignore_on_load_unexpected)).search
    unknown = sorted(key for key in found["unexpected_keys"] if not ignored(key))
    for keys, way in ((sorted(found["missing_keys"]), "lacks"), (unknown, "has more than")):
        if keys:
            raise UserError(
                f"backbone {name!r} {way} the weights that its config.json tells of, by {len(keys)} (as {keys[0]}); "
                f"{remedy(name)}"
            )
    return transformer


def load_asked(
    name: str,
    source: dict[str, Any],
    dtype: torch.dtype,
    quantization: str | None,
    file: Path | str | None,
) -> tuple[WanTransformer3DModel, Origin | None]:
    """A backbone's transformer as it is asked for, and its origin where its files alone make it.

    Args:
        source: where diffusers loads from.
        quantization, file: see :func:`imvideoedit.wan.backbone.load_backbone`.

    Raises:
        UserError: as :func:`load_transformer` and :func:`imvideoedit.wan.single_file.load_single_file`.
    """
    place, revision = source["pretrained_model_name_or_path"], source["revision"]
    if quantization is None and file is None:
        return Origin.of(place, revision, partial(load_transformer, name, **source, torch_dtype=dtype))
    device = default_device(None)
    config = None if quantization is None else quantization_config(quantization, dtype, device)
    on_device = quantization in ON_DEVICE
    if file is not None:
        transformer = load_single_file(file, source, config, dtype, device if on_device else None)
    else:
        how: dict[str, Any] = {"device_map": {"": device}} if on_device else {}
        transformer = load_transformer(name, **source, torch_dtype=dtype, quantization_config=config, **how)
    if is_quantized(transformer):
        name_by_files(transformer, folder_of(place, revision) if file is None else Path(file), quantization)
    return transformer, None


@contextlib.contextmanager
def named(name: str, place: str) -> Iterator[None]:
    """Inside, whatever the libraries raise is a ``UserError`` that names the backbone and where it is."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # diffusers and transformers do not document what a damaged folder raises
        words = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"backbone {name!r} cannot be loaded from {place}: {words}; {remedy(name)}") from error
