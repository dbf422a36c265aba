"""One training example, as ``Method.transform`` describes it, encoded as a batch of one."""

from typing import Any

import numpy as np
import torch

from imvideoedit.edit_batch import EditBatch
from imvideoedit.methods.base import Method
from imvideoedit.training.latent_pairs import as_condition
from imvideoedit.video.geometry import to_model
from imvideoedit.wan.backbone import Backbone


@torch.no_grad()
def batch_of(backbone: Backbone, method: Method, example: dict[str, Any], seed: int = 0) -> EditBatch:
    """The example with what the method changes and derives, on the encoders' devices.

    Args:
        backbone: with all its parts.
        method: installed in the backbone.
        example: with its ``prompt``; videos of k times the autoencoder's group of frames plus 1, and of a size that
            suits it.
        seed: of the method's transform.
    """
    values = dict(method.transform(example, np.random.default_rng(seed)))
    declared = {each.name: each for each in (*method.inputs, *method.derived)}
    text_BTD = backbone.encode_text([values.pop("prompt"), ""])
    encoded = {}
    for name, value in values.items():
        encoder = declared[name].encoder if name in declared else "vae"
        if encoder == "text":
            encoded[name] = backbone.encode_text([value])
        elif encoder == "clip":
            encoded[name] = backbone.encode_image(value[0])
        elif encoder == "raw":
            encoded[name] = as_condition(torch.from_numpy(value.copy()), len(values["source"]))[None]
        else:
            encoded[name] = backbone.encode_video(to_model(list(value)))
    source, target = encoded.pop("source"), encoded.pop("target")
    return EditBatch(source, target, text_BTD[:1], encoded, empty_TD=text_BTD[1])
