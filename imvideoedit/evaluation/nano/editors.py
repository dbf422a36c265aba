"""The editors that the nano benchmark compares: copying, the autoencoder's ceiling, and a trained adapter."""

from typing import Any, Literal

import numpy as np
import torch

from imvideoedit.common.errors import UserError
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.evaluation.nano.exact import Editor
from imvideoedit.nano.scene_batches import to_tensor
from imvideoedit.wan.backbone import Backbone
from imvideoedit.world.edits import Edit

Text = Literal["prompt", "instruction"]


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


def adapter_editor(pipeline: EditPipeline, text: Text = "prompt", **settings: Any) -> Editor:
    """The shipping pipeline.

    Args:
        text: ``prompt`` tells the source prompt too, so that the whole edited prompt can be made; ``instruction`` gives
            the instruction as it is typed.
        settings: in place of the adapter's own.

    Raises:
        UserError: there is no such text.
    """
    if text not in ("prompt", "instruction"):
        raise UserError(f"suite.text is {text!r}; choose prompt or instruction")

    def run(source: np.ndarray, edit: Edit) -> np.ndarray:
        typed = edit.instruction if text == "instruction" else None
        result = pipeline(source, edit.instruction, prompt=typed, source_prompt=edit.source_prompt, **settings)
        return result.frames

    return run
