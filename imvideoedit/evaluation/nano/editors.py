"""The editors that NanoEdit-Bench compares: copying, the autoencoder's ceiling, and a trained adapter."""

import threading
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import torch

from imvideoedit.common.errors import UserError
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.evaluation.nano.exact import Editor
from imvideoedit.nano.inputs import exact_inputs, offered
from imvideoedit.video.geometry import from_model, to_model
from imvideoedit.wan.backbone import Backbone
from imvideoedit.world.edits import Edit
from imvideoedit.world.render import render

Text = Literal["prompt", "instruction"]


def copy_source(source: np.ndarray, edit: Edit) -> np.ndarray:
    """Change nothing: the baseline that every editor must beat in the changed region."""
    return source


def ceiling(backbone: Backbone) -> Editor:
    """The exact answer through the backbone's autoencoder: no editor in its latents does better."""

    @torch.no_grad()
    def run(source: np.ndarray, edit: Edit) -> np.ndarray:
        exact = render(edit.target, len(source), source.shape[1:3])
        latents = backbone.encode_video(to_model(list(exact)).to(backbone.device))
        return from_model(backbone.decode_video(latents).float())

    return run


def given_inputs(pipeline: EditPipeline) -> tuple[str, ...]:
    """Names of the inputs that the pipeline's method gets here, exact: all that it declares and the nano world has.

    Raises:
        UserError: the method needs one that the nano world has not.
    """
    return tuple(offered(pipeline.method.inputs))


def input_options(pipeline: EditPipeline, edit: Edit, source: np.ndarray) -> dict[str, Any]:
    """Arguments of a call of the pipeline: the exact inputs for a source ``[F, H, W, 3]``; none for a plain method."""
    given = exact_inputs(edit, pipeline.method.inputs, len(source), source.shape[1:3])
    return {"inputs": given} if given else {}


def adapter_editor(pipeline: EditPipeline, text: Text = "prompt", **settings: Any) -> Editor:
    """The pipeline that users run, with the method's inputs, optional ones too; it may be called from several threads.

    Args:
        text: ``prompt`` passes the source prompt too, from which the full edited prompt is built; ``instruction``
            passes the instruction as typed.
        settings: in place of the adapter's own.

    Raises:
        UserError: there is no such text, or the method needs an input that the nano world has not.
    """
    if text not in ("prompt", "instruction"):
        raise UserError(f"suite.text is {text!r}; choose prompt or instruction")
    given_inputs(pipeline)
    turn = threading.Lock()

    def run(source: np.ndarray, edit: Edit) -> np.ndarray:
        typed = edit.instruction if text == "instruction" else None
        options = input_options(pipeline, edit, source) | settings
        with nullcontext() if _shared(pipeline, settings) else turn:
            result = pipeline(source, edit.instruction, prompt=typed, source_prompt=edit.source_prompt, **options)
        return result.frames

    return run


def _shared(pipeline: EditPipeline, settings: Mapping[str, Any]) -> bool:
    """Whether several threads may edit at a time: on a GPU they would not gain; offloading and caches have a state."""
    on_cpu = pipeline.backbone.device.type == "cpu" and pipeline.placement.level == "full"
    return on_cpu and not settings.get("cache", pipeline.config.cache)
