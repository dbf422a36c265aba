"""Video-free video editing: edit videos with a model trained on single-frame image pairs.

    from imvideoedit import EditPipeline

Short names: ``EditPipeline``, ``SamplingConfig``, ``EditBatch``, ``UserError``, ``load_backbone``, ``load_adapter``.
"""

import importlib
from typing import TYPE_CHECKING, Any

from imvideoedit.common.torchvision_fix import fix_torchvision

if TYPE_CHECKING:
    from imvideoedit.common.errors import UserError
    from imvideoedit.edit_batch import EditBatch
    from imvideoedit.editing.pipeline import EditPipeline
    from imvideoedit.editing.sampling_config import SamplingConfig
    from imvideoedit.methods.adapter_file import load_adapter
    from imvideoedit.wan.backbone import load_backbone

__version__ = "0.1.0"
__all__ = ["EditBatch", "EditPipeline", "SamplingConfig", "UserError", "load_adapter", "load_backbone"]

_PLACES = {
    "EditBatch": "edit_batch",
    "EditPipeline": "editing.pipeline",
    "SamplingConfig": "editing.sampling_config",
    "UserError": "common.errors",
    "load_adapter": "methods.adapter_file",
    "load_backbone": "wan.backbone",
}

fix_torchvision()


def __getattr__(name: str) -> Any:
    """Import a short name when it is used, so that commands start without the libraries they do not need."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
