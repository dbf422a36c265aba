"""From what a user types to what the model wants: the description of the whole scene after the edit.

The edit never waits for a description that cannot be had: where a way fails, the text is used as typed, and a note
says so.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.world.grammar import apply_instruction

if TYPE_CHECKING:
    from imvideoedit.clients.endpoint import Endpoint
    from imvideoedit.clients.local import LocalModel
    from imvideoedit.clients.settings import EndpointSettings

WAYS = ("none", "grammar", "endpoint", "local")
FRAME_SIDE = 768  # pixels of a frame's longer side that a model sees, at most
NOTE_LENGTH = 400  # characters


@dataclass(frozen=True)
class Expansion:
    """A prompt and where it comes from.

    Attributes:
        source_prompt: description of the scene before the edit, if there is one.
        prompt: description of the scene after the edit, or the text as typed.
        how: the way that made the prompt; ``none`` where another failed.
        note: one line for the user about a way that failed; empty otherwise.
    """

    source_prompt: str | None
    prompt: str
    how: str
    note: str = ""


def expand(
    instruction: str,
    frames: Sequence[np.ndarray] = (),
    how: str = "none",
    source_prompt: str | None = None,
    settings: "EndpointSettings | None" = None,
    local_model: str | None = None,
    device: str | None = None,
) -> Expansion:
    """The full edited prompt that an instruction asks for.

    Args:
        instruction: as the user typed it.
        frames: a few of the source video, uint8 ``[H, W, 3]``, in order of time; only ``endpoint`` and ``local`` look.
        how: ``none`` for the text as typed, ``grammar`` for the nano world's own, ``endpoint`` for a vision-language
            model behind an OpenAI-compatible endpoint, ``local`` for one in this process.
        source_prompt: description of the scene before the edit; ``endpoint`` and ``local`` write one where it is None.
        settings: of the endpoint, and the folder where answers are kept; as the environment says if None.
        local_model: folder of the model for ``local``, or its id on the hub.
        device: of the model for ``local``; the GPU if there is one.

    Raises:
        UserError: no such way, a setting out of its range, or ``local`` without a model that could be one.
        ValueError: a frame is not uint8 ``[H, W, 3]``, or a model is to look and there is none.
    """
    if how not in WAYS:
        raise UserError(f"there is no way {how!r} to expand an instruction; choose one of {', '.join(WAYS)}")
    if how == "none":
        return Expansion(source_prompt, instruction, how)
    if how == "grammar":
        return _by_grammar(instruction, source_prompt)
    shown = shrunk(frames)
    if how == "local":
        _check_local(local_model)
    try:
        from imvideoedit.clients.prompts import SYSTEM, PromptPair, prompt_question
        from imvideoedit.clients.settings import EndpointSettings
    except ImportError as error:
        return _as_typed(instruction, source_prompt, _missing(error))
    settings = settings or EndpointSettings()
    try:
        model = _model(how, settings, local_model, device)
        prompts = model.ask(prompt_question(instruction, shown, source_prompt), PromptPair, SYSTEM)
    except ImportError as error:
        return _as_typed(instruction, source_prompt, _missing(error))
    except Exception as error:  # of the network, the disk, a model's files or its code: none may cost the user the edit
        return _as_typed(instruction, source_prompt, str(error) or type(error).__name__)
    return Expansion(source_prompt or prompts.source_prompt, prompts.prompt, how)


def sample_frames(frames: Iterable[np.ndarray], length: int, count: int = 4) -> list[np.ndarray]:
    """Evenly spaced frames, the first and the last among them; all of them where there are no more than ``count``.

    Args:
        frames: a video, frame by frame; read once and not beyond the last frame wanted.
        length: number of its frames, at least 0; where there are fewer after all, those wanted so far are returned.
        count: of frames wanted, at least 1; a single one is the middle one.
    """
    if length < 0 or count < 1:
        raise ValueError(f"need a length of at least 0 and a count of at least 1; got {length} and {count}")
    if count == 1:
        wanted = {(length - 1) // 2} if length else set()
    else:
        wanted = {round(step * (length - 1) / (count - 1)) for step in range(count)} if length else set()
    read = itertools.islice(frames, max(wanted, default=-1) + 1)
    return [np.array(frame) for index, frame in enumerate(read) if index in wanted]


def _by_grammar(instruction: str, source_prompt: str | None) -> Expansion:
    prompt = apply_instruction(instruction, source_prompt)
    if prompt is None:
        return _as_typed(instruction, source_prompt, "the nano world's grammar does not know this instruction")
    return Expansion(source_prompt, prompt, "grammar")


def _model(how: str, settings: "EndpointSettings", local_model, device) -> "Endpoint | LocalModel":
    if how == "endpoint":
        from imvideoedit.clients.endpoint import Endpoint

        return Endpoint(settings)
    from imvideoedit.clients.local import LocalModel

    return LocalModel(local_model, settings.cache, device)


def _check_local(name: str | None) -> None:
    if not name:
        raise UserError(
            "expanding with a local model needs one; give the folder of a vision-language model or a hub id"
        )
    if not Path(name).is_dir() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
        raise UserError(f"there is no model at {name}; give the folder of a vision-language model or a hub id")


def shrunk(frames: Sequence[np.ndarray], side: int = FRAME_SIDE) -> list[np.ndarray]:
    """Frames that are no larger than a model needs: at most ``side`` pixels on the longer side.

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


def _missing(error: ImportError) -> str:
    if error.name in ("openai", "pydantic"):
        return f"{error.name} is not installed; pip install 'imvideoedit[models]'"
    return str(error)


def _as_typed(instruction: str, source_prompt: str | None, reason: str) -> Expansion:
    reason = " ".join(reason.split())[:NOTE_LENGTH]
    return Expansion(source_prompt, instruction, "none", f"the instruction is used as typed: {reason}")
