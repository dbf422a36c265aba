"""An edit of ComfyUI's images, as a node makes it."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from imvideoedit.comfy import host
from imvideoedit.comfy.media import to_image, to_images, to_mask, to_video
from imvideoedit.comfy.models import Adapter, on_device
from imvideoedit.common.errors import UserError
from imvideoedit.editing.edit_file import run_in_memory
from imvideoedit.editing.inputs import from_arrays, known_inputs
from imvideoedit.editing.job_inputs import MASK
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.editing.prompts import expand

LOG = logging.getLogger(__name__)
REMEDY = "give a smaller max_area or fewer max_frames in the settings, or load the adapter with memory low"


def edit(
    adapter: Adapter,
    video: Tensor,
    instruction: str,
    quality: str,
    seed: int,
    prompt: str = "",
    source_prompt: str = "",
    settings: Mapping[str, Any] | None = None,
    **inputs: Tensor | None,
) -> tuple[Tensor, str]:
    """Edit frames, and show on the node how far it is; ends where the user cancels.

    Args:
        video: an IMAGE, ``[F, H, W, 3]`` in 0 to 1.
        instruction, quality, seed: as of a ``Job``.
        prompt, source_prompt: as of a ``Job``; empty where there is none.
        settings: values of ``SamplingConfig`` that override the adapter's own.
        inputs: what the adapter takes besides, by name, as IMAGE or MASK; None where it is not given.

    Returns:
        An IMAGE of the source's shape, and the prompt that was used.

    Raises:
        UserError: nothing says what to change, a value is out of its range, an input is missing, unknown or does not
            fit the video, or memory ran out.
    """
    frames = to_video(video, "video")
    pipeline = adapter.pipeline()
    config = pipeline.config.preset(quality).override(**settings or {})
    given = {name: _array(name, value) for name, value in inputs.items() if value is not None}
    pipeline.check_inputs(given)
    sources = from_arrays(known_inputs(pipeline.method.inputs), given, len(frames))
    text = _prompt(pipeline, adapter, instruction, prompt, source_prompt)
    progress, edited = host.Progress(), np.empty_like(frames)

    def write() -> None:
        fitted = pipeline.fit_memory(config, *frames.shape[1:3])
        stream: Any = pipeline.stream(lambda: _checked(frames), text, fitted, seed, progress, None, sources)
        with contextlib.closing(stream):  # at once, and not when a cancelled run's error is forgotten
            for index, frame_HWC in enumerate(_checked(stream)):
                edited[index] = frame_HWC

    with on_device(pipeline):
        run_in_memory(pipeline, write, "the video", REMEDY)
    return to_images(edited), text


def _array(name: str, value: Tensor) -> np.ndarray:
    return to_mask(value, name) if name == MASK else to_image(value, name)


def _prompt(pipeline: EditPipeline, adapter: Adapter, instruction: str, prompt: str, source_prompt: str) -> str:
    """What the model reads. The prompts of an adapter that was fitted to one clip begin as in its fit."""
    fitted = adapter.fitted()
    if fitted is not None:
        return fitted.prefix + (prompt or instruction or fitted.prompt)
    if not (instruction or prompt):
        raise UserError('there is no instruction; say what to change, such as "make the red box blue"')
    made = expand(instruction, (), None, source_prompt or None, prompt=prompt or None, nano=pipeline.has_grammar)
    if made.note:
        LOG.warning("%s", made.note)
    return made.prompt


def _checked(frames: Any) -> Iterator[np.ndarray]:
    """The frames, as long as the user has not cancelled."""
    for frame_HWC in frames:
        host.check_cancelled()
        yield frame_HWC
