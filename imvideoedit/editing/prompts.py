"""From an instruction to a prompt: the description of the full scene after the edit.

An edit never fails for lack of a description: where a way fails, the instruction is the prompt, and a note says so.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.world.grammar import apply_instruction

if TYPE_CHECKING:
    from imvideoedit.clients.prompts import PromptPair
    from imvideoedit.clients.settings import EndpointSettings

WAYS = ("none", "grammar", "endpoint", "local")
FRAME_SIDE = 768  # most pixels of the longer side of a frame that a model is sent
NOTE_LENGTH = 400  # characters


class Frames(Protocol):
    """A video as frames, uint8 ``[H, W, 3]``: an array, a list or a ``Clip``."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[np.ndarray]: ...


@dataclass(frozen=True)
class Expansion:
    """A prompt and its origin.

    Attributes:
        source_prompt: description of the scene before the edit, if there is one.
        prompt: description of the scene after the edit, or the instruction.
        how: the way that made the prompt; ``none`` where another failed.
        note: one line for the user about a way that failed; empty otherwise.
    """

    source_prompt: str | None
    prompt: str
    how: str
    note: str = ""


def expand(
    instruction: str,
    video: Frames = (),
    how: str | None = None,
    source_prompt: str | None = None,
    settings: "EndpointSettings | None" = None,
    local_model: str | None = None,
    device: str | None = None,
    *,
    prompt: str | None = None,
    nano: bool = False,
) -> Expansion:
    """The prompt of an edit, for the command line and the Python API alike.

    Args:
        video: the source; only ``endpoint`` and ``local`` look at a few of its frames.
        how: ``none`` for the instruction itself, ``grammar`` for the nano world's grammar, ``endpoint`` for a
            vision-language model behind an OpenAI-compatible endpoint, ``local`` for one in this process; ``grammar``
            on nano, ``none`` elsewhere if None.
        source_prompt: description of the scene before the edit; ``endpoint`` and ``local`` write one where it is None.
        settings: of the endpoint, and the folder of cached answers; from the environment if None.
        local_model: folder of the model for ``local``, or its hub id.
        device: of the model for ``local``; the GPU if there is one.
        prompt: used as it is, where given.
        nano: see ``Backbone.is_nano``.

    Raises:
        UserError: no such way, a setting out of its range, or ``local`` without a model.
        ValueError: a frame is not uint8 ``[H, W, 3]``, or a model needs frames and there are none.
    """
    how = how or ("grammar" if nano else "none")
    if how not in WAYS:
        raise UserError(f"there is no way {how!r} to expand an instruction; choose one of {', '.join(WAYS)}")
    if how == "none" or prompt is not None:
        return Expansion(source_prompt, instruction if prompt is None else prompt, "none")
    if how == "grammar":
        edited = apply_instruction(instruction, source_prompt)
        if edited is None:
            return _as_typed(instruction, source_prompt, "the nano world's grammar does not know this instruction")
        return Expansion(source_prompt, edited, how)
    frames = shrunk(sample_frames(video, len(video)))
    if how == "local":
        _check_local(local_model)
    if settings is None:
        from imvideoedit.clients.settings import EndpointSettings

        settings = EndpointSettings()
    try:
        prompts = _ask(how, instruction, frames, source_prompt, settings, local_model, device)
    except Exception as error:  # of the network, the disk, a model's files or its code: none may cost the user the edit
        missing = isinstance(error, ImportError) and error.name in ("openai", "pydantic", "tenacity")
        install = f"{getattr(error, 'name', '')} is not installed; pip install 'imvideoedit[models]'"
        return _as_typed(instruction, source_prompt, install if missing else str(error) or type(error).__name__)
    return Expansion(source_prompt or prompts.source_prompt, prompts.prompt, how)


def sample_frames(frames: Iterable[np.ndarray], length: int, count: int = 4) -> list[np.ndarray]:
    """Evenly spaced frames, with the first and the last; all of them where there are at most ``count``.

    Args:
        frames: a video, frame by frame; read once and not beyond the last frame wanted.
        length: number of its frames, at least 0; where there are fewer after all, those found are returned.
        count: number of frames wanted, at least 1; a single one is the middle one.
    """
    if length < 0 or count < 1:
        raise ValueError(f"need a length of at least 0 and a count of at least 1; got {length} and {count}")
    if count == 1:
        wanted = {(length - 1) // 2} if length else set()
    else:
        wanted = {round(step * (length - 1) / (count - 1)) for step in range(count)} if length else set()
    read = itertools.islice(frames, max(wanted, default=-1) + 1)
    return [np.array(frame) for index, frame in enumerate(read) if index in wanted]


def _ask(how, instruction, frames, source_prompt, settings, local_model, device) -> "PromptPair":
    from imvideoedit.clients.prompts import SYSTEM, PromptPair, prompt_question

    if how == "endpoint":
        from imvideoedit.clients.endpoint import Endpoint

        model: Any = Endpoint(settings)
    else:
        from imvideoedit.clients.local import LocalModel

        model = LocalModel(local_model, settings.cache, device)
    return model.ask(prompt_question(instruction, frames, source_prompt), PromptPair, SYSTEM)


def _check_local(name: str | None) -> None:
    if not name:
        raise UserError(
            "expanding with a local model needs one; give the folder of a vision-language model or a hub id"
        )
    if not Path(name).is_dir() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
        raise UserError(f"there is no model at {name}; give the folder of a vision-language model or a hub id")


def shrunk(frames: Sequence[np.ndarray], side: int = FRAME_SIDE) -> list[np.ndarray]:
    """Frames scaled down to at most ``side`` pixels on the longer side.

    Raises:
        ValueError: there is none, or one is not uint8 ``[H, W, 3]``.
    """
    if not len(frames):
        raise ValueError("a model that describes the video needs frames of it")
    shown = []
    for frame_HWC in frames:
        if frame_HWC.dtype != np.uint8 or frame_HWC.ndim != 3 or frame_HWC.shape[2] != 3 or not frame_HWC.size:
            raise ValueError(f"need uint8 frames [H, W, 3]; got {frame_HWC.dtype} {list(frame_HWC.shape)}")
        image = Image.fromarray(frame_HWC)
        image.thumbnail((side, side))
        shown.append(np.array(image))
    return shown


def _as_typed(instruction: str, source_prompt: str | None, reason: str) -> Expansion:
    reason = " ".join(reason.split())[:NOTE_LENGTH]
    return Expansion(source_prompt, instruction, "none", f"the instruction is used as typed: {reason}")
