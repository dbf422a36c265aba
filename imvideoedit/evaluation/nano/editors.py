"""The editors that NanoEdit-Bench compares: copying, the autoencoder's ceiling, and a trained adapter."""

from typing import Any, Literal

import numpy as np
import torch

from imvideoedit.common.errors import UserError
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.evaluation.nano.exact import Editor
from imvideoedit.video.geometry import from_model, to_model
from imvideoedit.wan.backbone import Backbone
from imvideoedit.world.edits import Edit

Text = Literal["prompt", "instruction"]


def copy_source(source: np.ndarray, edit: Edit) -> np.ndarray:
    """Change nothing: the baseline that every editor must beat in the changed region."""
    return source


def ceiling(backbone: Backbone) -> Editor:
    """The exact answer through the backbone's autoencoder: no editor in its latents does better."""

    @torch.no_grad()
    def run(source: np.ndarray, edit: Edit) -> np.ndarray:
        _, exact, _ = edit.render(len(source), source.shape[1:3])
        latents = backbone.encode_video(to_model(list(exact)).to(backbone.device))
        return from_model(backbone.decode_video(latents).float())

    return run


def adapter_editor(pipeline: EditPipeline, text: Text = "prompt", **settings: Any) -> Editor:
    """The pipeline that users run.

    Args:
        text: ``prompt`` passes the source prompt too, from which the full edited prompt is built; ``instruction``
            passes the instruction as typed.
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
