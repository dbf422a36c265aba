"""Adapter files: the trained tensors in safetensors, with a versioned header in its metadata.

A file loads completely or not at all.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save
from torch import Tensor

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing
from imvideoedit.common.hashing import hash_tensors
from imvideoedit.common.tensor_file import first_not_finite, misfit
from imvideoedit.methods.adapter_header import (
    CHECKS,
    FIX,
    AdapterHeader,
    describe_inputs,
    header_hash,
    named,
    open_adapter,
    read_header,
    tensors_hash,
)
from imvideoedit.methods.base import Method
from imvideoedit.methods.known import METHODS
from imvideoedit.wan.context import block_dtype
from imvideoedit.wan.identity import parameter_hash
from imvideoedit.wan.kinship import ALIKE, architecture, likeness, sketch

LOG = logging.getLogger(__name__)


def save_adapter(
    method: Method,
    path: Path | str,
    header: AdapterHeader,
    state: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write an adapter; it appears complete or not at all.

    Args:
        method: an installed method.
        state: tensors to write in place of the method's own, such as their running average.
        dtype: to store in; the tensors' own if None. Half precision halves the file.

    Raises:
        ValueError: ``state`` has other names than the method, or there is nothing to save.
        UserError: a value is NaN or infinite; such a file would not load.
    """
    own = method.state_dict()
    tensors = dict(own if state is None else state)
    if not own or own.keys() != tensors.keys():
        raise ValueError("the tensors to save are not those of an installed method")
    odd = first_not_finite(tensors)
    if odd is not None:
        raise UserError(f"{odd} is NaN or infinite, so {path} is not written; train again with a lower learning rate")
    stored = {name: tensor.detach().to("cpu", dtype or tensor.dtype).contiguous() for name, tensor in tensors.items()}
    entries = asdict(header)
    entries["training"] |= {CHECKS: {"header": header_hash(header), "tensors": hash_tensors(stored)}}
    metadata = {key: json.dumps(value) for key, value in entries.items()}
    with replacing(path) as temporary:
        # Not save_file, which replaces the file, and whose errors do not tell a full disk from others.
        temporary.write_bytes(save(stored, metadata))


def read_state(path: Path | str) -> dict[str, Tensor]:
    """Read the tensors of an adapter file, as stored, on the CPU.

    Raises:
        UserError: missing or damaged, a value is NaN or infinite, or the tensors are not those that were written.
    """
    file = open_adapter(path)
    state, written = file.tensors(), tensors_hash(path, file.metadata)
    if written is not None and hash_tensors(state) != written:
        raise UserError(f"{path} is damaged: its tensors are not those that were written; {FIX}")
    return state


def load_adapter(
    path: Path | str,
    transformer: WanTransformer3DModel,
    dtype: torch.dtype | None = None,
    backbone_hash: str | None = None,
    backbone_name: str | None = None,
) -> Method:
    """Rebuild a method from its file and install it, frozen, ready to sample.

    Args:
        transformer: the model the adapter was trained in, by its parameter hash, or kin of it, by a few of its weights:
            a finetune, a quantised one, another precision.
        dtype: of the adapter; that of the transformer's blocks if None.
        backbone_hash: the transformer's, where it is known, such as by ``Backbone.parameter_hash``.
        backbone_name: the transformer's, for the warning of one that is kin of the model it was trained in.

    Returns:
        The installed method. To train on, give float32 and call ``requires_grad_(True)``.

    Raises:
        UserError: missing or damaged file, other backbone, unknown method, one that takes other inputs, or tensors
            that do not fit. The transformer is then as it was.
        RuntimeError: the transformer is adapted already.
    """
    header = read_header(path)
    _check_backbone(path, header, transformer, backbone_hash or parameter_hash(transformer), backbone_name)
    state = read_state(path)
    if header.method not in METHODS:
        raise UserError(f"{path} is for method {header.method!r}; this imvideoedit knows {', '.join(METHODS)}")
    kind = METHODS[header.method]
    if header.inputs != describe_inputs(kind.inputs):
        raise UserError(
            f"{path} takes {named(header.inputs)}, but this imvideoedit's {header.method} takes "
            f"{named(describe_inputs(kind.inputs))}; upgrade imvideoedit, or train it again"
        )
    try:
        method = kind(**header.config)
        method.install(transformer, dtype or block_dtype(transformer))
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} has settings its method does not know ({error}); upgrade imvideoedit") from error
    if wrong := misfit(method.state_dict(), state):
        method.uninstall()
        raise UserError(f"{path} does not fit its own settings: {wrong}; train or export it again")
    method.load_state_dict(state, strict=True)
    return method.requires_grad_(False).eval()


def warm_start(method: Method, path: Path | str, backbone_hash: str | None = None) -> None:
    """Give an installed method the weights of an adapter of the same backbone, or of its kin; what it lacks stays.

    Args:
        backbone_hash: as in :func:`load_adapter`.

    Raises:
        UserError: missing or damaged file, other backbone, or tensors that the method does not have in that shape.
    """
    own_hash = backbone_hash or parameter_hash(method.transformer, method.parameters())
    _check_backbone(path, read_header(path), method.transformer, own_hash, None)
    state, own = read_state(path), method.state_dict()
    if wrong := misfit({name: own[name] for name in own.keys() & state.keys()}, state):
        raise UserError(f"{path} cannot start this method: {wrong}; check method and its settings")
    method.load_state_dict(state, strict=False)


def adapter_hash(adapter: Path | str | Mapping[str, Tensor]) -> str:
    """16 hex digits that name an adapter's tensors, from a file or from a state; the header does not count."""
    return hash_tensors(read_state(adapter) if isinstance(adapter, Path | str) else adapter)


def _check_backbone(
    path: Path | str, header: AdapterHeader, transformer: WanTransformer3DModel, found: str, name: str | None
) -> None:
    """See that a transformer is the one that an adapter was trained in, or kin of it, of which a warning is given."""
    own, wanted = header.backbone, header.backbone["parameter_hash"]
    if found == wanted:
        return
    said = f"{path} was trained in backbone {own['name']!r} with parameter hash {wanted}, but the loaded one"
    trained_in, here = own.get("architecture"), architecture(transformer)
    odd = next((key for key in here if trained_in is not None and trained_in.get(key) != here[key]), None)
    if odd is not None:
        raise UserError(
            f"{said} is of another architecture ({odd} is {here[odd]}, not {(trained_in or {}).get(odd)}); "
            "load the backbone it was trained in"
        )
    alike = likeness(own.get("sketch") or "", sketch(transformer))
    if alike < ALIKE:
        raise UserError(f"{said} has parameter hash {found}; load the backbone it was trained in")
    how = "".join(f" ({own[key]})" for key in ("file", "quantization") if own.get(key))
    LOG.warning(
        "%s was trained in %s%s and runs in %s, whose weights are its kin (alike by %.3f): finetuned, quantised or in "
        "another precision; edits differ",
        path, own["name"], how, name or found, alike,
    )  # fmt: skip
