"""Edit a file: any video in, the same video out, edited; what it was made with is written into it."""

import contextlib
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from transformers.utils import logging as transformers_logging

import imvideoedit
from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing
from imvideoedit.common.machine import is_out_of_memory
from imvideoedit.editing.jobs import STILLS, Job, check_job
from imvideoedit.editing.model_options import Model
from imvideoedit.editing.pipeline import EditPipeline, Progress
from imvideoedit.editing.presets import PRESETS
from imvideoedit.editing.prompts import Expansion, expand, sample_frames
from imvideoedit.video.reader import Clip, VideoWriter, read_metadata

METADATA_KEY = "imvideoedit"
LESS = "give a smaller --max-area, fewer --max-frames, or --memory low"


def load(model: Model, device: str | None) -> EditPipeline:
    """A pipeline without the libraries' own progress bars.

    Raises:
        UserError: the device cannot be used, or what ``EditPipeline.from_pretrained`` raises.
    """
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device} cannot be used here ({str(error).splitlines()[0]})") from error
    return EditPipeline.from_pretrained(
        adapter=dict(model.adapters),
        device=device,
        memory=model.memory,
        loras=dict(model.loras),
        attention=model.attention,
        compile=model.compile,
    )


def edit_file(pipeline: EditPipeline, job: Job, identity: str, progress: Progress | None = None) -> Expansion:
    """Edit ``job.input`` into ``job.output``, and beside the source if it asks so; files appear whole or not at all.

    Args:
        identity: of the model that the pipeline was loaded from.

    Returns:
        The texts that were used.

    Raises:
        UserError: the input cannot be read or the output not written, a setting is out of its range, or memory ran out
            twice.
    """
    check_job(job)
    clip = Clip(job.input, job.start, job.end, job.fps)
    texts = expansion_of(pipeline, job, clip)
    try:
        _write(pipeline, job, clip, texts, identity, progress)
        return texts
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Here the error is gone, and with it what its frames held.
    if not pipeline.placement.lower():
        raise UserError(f"{job.input} does not fit into memory; {LESS}")
    try:
        _write(pipeline, job, clip, texts, identity, progress)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"{job.input} does not fit into memory, also a notch lower; {LESS}") from error
    return texts


def _write(
    pipeline: EditPipeline, job: Job, clip: Clip, texts: Expansion, identity: str, progress: Progress | None
) -> None:
    chosen = PRESETS[job.quality](pipeline.defaults).with_given(**job.settings)
    chosen = pipeline.fit_memory(chosen, clip.info.height, clip.info.width)
    facts = {**job.facts(), "adapter_hash": identity}
    facts |= {"used": {"prompt": texts.prompt, "source_prompt": texts.source_prompt, **vars(chosen)}}
    facts |= {"backbone": pipeline.backbone.name, "versions": _versions()}
    edited = pipeline.stream(lambda: iter(clip), texts.prompt, chosen, job.seed, progress)
    with contextlib.ExitStack() as stack:
        sinks = [stack.enter_context(_sink(job.output, clip, job, facts))]
        if job.side_by_side:
            sinks.append(stack.enter_context(_sink(beside(job.output), clip, job, facts)))
        for source_HWC, edited_HWC in zip(clip if job.side_by_side else _nothing(), edited, strict=False):
            sinks[0](edited_HWC)
            if job.side_by_side:
                sinks[1](np.concatenate([source_HWC, edited_HWC], axis=1))


def expansion_of(pipeline: EditPipeline, job: Job, clip: Clip) -> Expansion:
    """The prompt of a job: as given, or made from the instruction the way it says."""
    if job.prompt is not None:
        return Expansion(job.source_prompt, job.prompt, "none")
    how = job.expand or ("grammar" if pipeline.backbone.name == "nano" else "none")
    looks = how in ("endpoint", "local")
    frames = sample_frames(clip, len(clip)) if looks else []
    return expand(job.instruction, frames, how, job.source_prompt, local_model=job.expand_model)


def beside(output: Path) -> Path:
    """Where source and edit go beside each other."""
    return output.with_name(f"{output.stem}_side_by_side{output.suffix}")


def is_made(job: Job, identity: str) -> bool:
    """Whether the output is there and was made from this very job with the model of that identity.

    Raises:
        UserError: another file is in the output's place.
    """
    if not job.output.exists():
        return False
    facts = read_facts(job.output)
    if facts is None:
        raise UserError(f"{job.output} is there and was not made here; move it, or give another output")
    wanted = json.loads(json.dumps({**job.facts(), "adapter_hash": identity}))
    return all(facts.get(key) == value for key, value in wanted.items())


def read_facts(path: Path) -> dict[str, Any] | None:
    """What an edited file says it was made with; None where it says nothing."""
    try:
        if path.suffix.lower() == ".png" and path.is_file():
            with Image.open(path) as picture:
                text = picture.info.get(METADATA_KEY)
        else:
            text = read_metadata(path).get(METADATA_KEY)
        return json.loads(text) if text else None
    except (OSError, UserError, json.JSONDecodeError):
        return None


@contextlib.contextmanager
def _sink(path: Path, clip: Clip, job: Job, facts: dict[str, Any]) -> Iterator[Any]:
    """A function that takes the frames of an output in turn."""
    texts = {METADATA_KEY: json.dumps(facts), "comment": f"imvideoedit: {job.instruction}"}
    if path.suffix.lower() in STILLS:
        with replacing(path) as temporary:
            info = PngInfo()
            for key, text in texts.items():
                info.add_itxt(key, text)
            yield lambda frame_HWC: Image.fromarray(frame_HWC).save(temporary, "PNG", pnginfo=info)
        return
    sound = job.input if clip.info.has_audio else None
    with VideoWriter(path, clip.info, sound=sound, metadata=texts, codec=job.codec) as writer:
        yield writer.add


def _nothing() -> Iterator[None]:
    while True:
        yield None


def _versions() -> dict[str, str]:
    return {"imvideoedit": imvideoedit.__version__, **{name: version(name) for name in ("torch", "diffusers")}}
