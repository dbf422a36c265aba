"""The backbone of an edit: the one that the adapter was trained in, loaded as it was then, or another of its kin."""

import os.path
from collections.abc import Collection
from typing import Any

import torch

from imvideoedit.methods.adapter_header import AdapterHeader
from imvideoedit.wan.backbone import PARTS, Backbone, load_backbone
from imvideoedit.wan.quantizations import FILES

NO_QUANTIZATION = "none"


def load_chosen(
    header: AdapterHeader,
    base: str | None,
    quantization: str | None,
    dtype: torch.dtype,
    parts: Collection[str] = PARTS,
) -> Backbone:
    """Load the backbone of an adapter, on the CPU, as whether all of it fits on the device is not known yet.

    Args:
        header: of the adapter.
        base: a name, a folder or a hub id; or a file of the transformer's weights, whose other parts are those of the
            adapter's backbone; None for the adapter's.
        quantization: ``none``, or as in :func:`imvideoedit.wan.backbone.load_backbone`; None for the adapter's where
            its backbone is loaded, else for none.
        parts: as in :func:`imvideoedit.wan.backbone.load_backbone`.

    Raises:
        UserError: nothing there, or not loadable.
    """
    own = header.backbone
    how: dict[str, Any] = {"quantization": None if quantization == NO_QUANTIZATION else quantization}
    if base is None:
        how["file"] = own.get("file")
        how["quantization"] = own.get("quantization") if quantization is None else how["quantization"]
    elif base.endswith(FILES) and not os.path.isdir(base):
        how["file"], base = base, None
    name = base or own["name"]
    return load_backbone(name, own.get("revision") if name == own["name"] else None, "cpu", dtype, parts, **how)
