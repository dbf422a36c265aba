"""The editors that the nano benchmark compares: copying, the autoencoder's ceiling, and a trained adapter."""

import numpy as np
import torch

from ..backbone import Backbone
from ..nano.edits import Edit
from ..nano.world import to_tensor
from ..pipeline import EditPipeline
from .exact import Editor


def copy_source(source: np.ndarray, edit: Edit) -> np.ndarray:
    """Do nothing: the floor that every editor must beat in the changed region."""
    return source


def ceiling(backbone: Backbone) -> Editor:
    """The exact answer through the backbone's autoencoder: no editor in its latents does better."""

    @torch.no_grad()
    def run(source: np.ndarray, edit: Edit) -> np.ndarray:
        _, exact, _ = edit.render(len(source), source.shape[1:3])
        rebuilt = backbone.decode_video(backbone.encode_video(to_tensor(exact)[None].to(backbone.device)))
        pixels = (rebuilt[0].float().cpu() + 1) * 127.5
        return pixels.round().clamp(0, 255).byte().permute(1, 2, 3, 0).numpy()

    return run


def adapter_editor(pipeline: EditPipeline, **sampler) -> Editor:
    """The shipping pipeline, told the instruction and the source prompt; ``sampler`` overrides its defaults."""

    def run(source: np.ndarray, edit: Edit) -> np.ndarray:
        result = pipeline(source, edit.instruction, source_prompt=edit.source_prompt, **sampler)
        return result.frames

    return run
