"""Edit a file: any video in, the same video out, edited; its metadata says how it was made."""

import contextlib
import json
import os.path
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

import imvideoedit
from imvideoedit.common.errors import UserError
from imvideoedit.common.json_file import parse_json
from imvideoedit.common.machine import is_out_of_memory
from imvideoedit.editing.denoiser import Progress, StepCallback
from imvideoedit.editing.first_frame import chosen_editor, wanted
from imvideoedit.editing.first_frame_editor import FirstFrameEditor
from imvideoedit.editing.fitted_clip import FittedClip
from imvideoedit.editing.inputs import Sources, from_files, known_inputs
from imvideoedit.editing.job import Job, side_by_side_path
from imvideoedit.editing.model_options import OFFLOAD_LEVELS, ModelOptions
from imvideoedit.editing.outputs import frame_writer
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.editing.prompts import Expansion, expand
from imvideoedit.methods.adapter_hub import origin
from imvideoedit.video.reader import Clip, read_metadata
from imvideoedit.wan.backbone import Backbone

METADATA_KEY = "imvideoedit"
REMEDY = "give a smaller --max-area, fewer --max-frames, or --memory low"
FrameCallback = Callable[[str, int], None]
"""Called with ``reading`` or ``writing`` and the number of frames so far; may raise to stop."""


def load_pipeline(options: ModelOptions, device: str | None, backbone: Backbone | None = None) -> EditPipeline:
    """A pipeline without the libraries' own progress bars.

    Args:
        backbone: loaded already; None for the options'.

    Raises:
        UserError: the device cannot be used, or what ``EditPipeline.from_pretrained`` raises.
    """
    quiet_loading()
    check_device(device)
    pipeline = EditPipeline.from_pretrained(
        adapter=dict(options.adapters),
        device=device,
        memory=options.memory,
        loras=dict(options.loras),
        attention=options.attention,
        compile=options.compile,
        backbone=backbone or options.base,
        quantization=options.quantization,
    )
    pipeline.identity, pipeline.contents = options.identity, options.contents
    if (fitted := FittedClip.of(options.adapters[0][0])) is not None:
        pipeline.completed = partial(fitted.completed, adapter=options.adapters[0][0])
    editor = chosen_editor(options.adapters[0][0], options.first_frame_adapter)
    # Between two edits its parts leave the device to those of the adapter.
    memory = options.memory if options.memory in OFFLOAD_LEVELS[1:] else "model"
    pipeline.first_frames = FirstFrameEditor(editor, device=device, memory=memory, attention=options.attention)
    return pipeline


def quiet_loading() -> None:
    """Turn off the libraries' own progress bars."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def check_device(device: str | None) -> None:
    """See that a device, if one is asked for, can be used.

    Raises:
        UserError: it cannot.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device} cannot be used here ({str(error).splitlines()[0]})") from error


def edit_file(
    pipeline: EditPipeline,
    job: Job,
    progress: Progress | None = None,
    on_step: StepCallback | None = None,
    on_frame: FrameCallback | None = None,
) -> Expansion:
    """Edit ``job.input`` into ``job.output``; files appear complete or not at all.

    Returns:
        The prompts that were used.

    Raises:
        UserError: the input cannot be read or the output not written, a setting is out of its range, what the adapter
            takes is missing, unknown or does not fit, or memory ran out, also at the next lower offload level.
    """
    job.check()
    # Before a frame is read: where a file is replaced meanwhile, the edit counts as that of the old one.
    facts, clip = job.facts(), job.open_clip()
    job = pipeline.completed(job)
    editor = pipeline.first_frames
    made = [] if editor is None else wanted(pipeline.method.inputs, job.given)
    if editor is not None:
        editor.check(made, pipeline.title)
    pipeline.check_inputs([*job.given, *made])
    inputs = from_files(known_inputs(pipeline.method.inputs), job.given, clip)
    prompts = expand(
        job.instruction,
        clip,
        job.expand,
        job.source_prompt,
        prompt=job.prompt,
        nano=pipeline.has_grammar,
        local_model=job.expand_model,
    )
    if editor is not None and made:
        frame_HWC = editor.make(next(iter(clip)), prompts.prompt, job.seed, prompts.source_prompt)
        inputs = {**inputs, **{name: partial(iter, frame_HWC[None]) for name in made}}
        prompts = replace(prompts, note="; ".join(filter(None, [prompts.note, editor.note(made)])))
    write = partial(_write, pipeline, job, facts, clip, inputs, prompts, progress, on_step, on_frame)
    run_in_memory(pipeline, write, str(job.input), REMEDY)
    return prompts


def run_in_memory(pipeline: EditPipeline, write: Callable[[], None], what: str, remedy: str) -> None:
    """Run ``write``; where memory runs out, once more one offload level lower.

    Args:
        what: is edited, for the error.
        remedy: for the error.

    Raises:
        UserError: memory ran out again, or there is no lower level.
    """
    if not _fits(write):
        lowered = pipeline.placement.lower()
        if not (lowered and _fits(write)):
            also = ", also one offload level lower" if lowered else ""
            raise UserError(f"{what} does not fit into memory{also}; {remedy}")


def _fits(write: Callable[[], None]) -> bool:
    """Run ``write``; False where memory ran out. The error, and with it what its frames held, is gone then."""
    try:
        write()
        return True
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False


def _write(
    pipeline: EditPipeline,
    job: Job,
    facts: dict[str, Any],
    clip: Clip,
    inputs: Sources,
    prompts: Expansion,
    progress,
    on_step,
    on_frame,
) -> None:
    config = pipeline.config.preset(job.quality).override(**job.settings)
    config = pipeline.fit_memory(config, clip.info.height, clip.info.width)
    facts = {**facts, "model": pipeline.contents, "adapter_hash": pipeline.identity, "backbone": pipeline.backbone.name}
    if hub := [name for name in map(origin, pipeline.adapters) if name]:
        facts["hub"] = hub
    facts |= {"used": {"prompt": prompts.prompt, "source_prompt": prompts.source_prompt, **vars(config)}}
    facts |= {"versions": {"imvideoedit": imvideoedit.__version__, **{n: version(n) for n in ("torch", "diffusers")}}}
    texts = {METADATA_KEY: json.dumps(facts), "comment": f"imvideoedit: {job.instruction}"}
    edited = pipeline.stream(
        lambda: _counted(clip, "reading", on_frame), prompts.prompt, config, job.seed, progress, on_step, inputs
    )
    with contextlib.ExitStack() as stack:
        write = stack.enter_context(frame_writer(job.output, clip, job.codec, texts))
        if job.side_by_side:
            write_both = stack.enter_context(frame_writer(side_by_side_path(job.output), clip, job.codec, texts))
        sources = clip if job.side_by_side else repeat(None)
        for source_HWC, edited_HWC in zip(sources, _counted(edited, "writing", on_frame), strict=False):
            write(edited_HWC)
            if source_HWC is not None:
                write_both(np.concatenate([source_HWC, edited_HWC], axis=1))


def _counted(frames, phase: str, on_frame: FrameCallback | None) -> Iterator[np.ndarray]:
    for count, frame_HWC in enumerate(frames, 1):
        if on_frame is not None:
            on_frame(phase, count)
        yield frame_HWC


def is_made(job: Job, model: str) -> bool:
    """Whether the job's files exist and were made from what it says, with that model; see :func:`why_made_again`."""
    return why_made_again(job, model) is None


def why_made_again(job: Job, model: str) -> str | None:
    """What differs in the job's files that exist from what they would be now; None if nothing, empty if one is missing.

    Contents and settings decide, not names. Files of earlier versions do not say which content they were made from, so
    they are made again.

    Args:
        model: ``ModelOptions.contents`` of the adapters and LoRAs.

    Raises:
        UserError: another file is in an output's place, or a file of the job is missing.
    """
    wanted = {**job.facts(), "model": model}
    del wanted["input"]  # a name
    wanted = parse_json(json.dumps(wanted), "the job")  # as metadata hold it
    differing: set[str] = set()
    missing = False
    for path in job.files:
        if not os.path.lexists(path):
            missing = True
            continue
        facts = read_facts(path)
        if facts is None:
            raise UserError(f"{path} exists and was not made here; move it, or give another output")
        if "input_hash" not in facts:
            return "an earlier version made it, without a record of the input's content"
        differing |= {key for key, value in wanted.items() if facts.get(key) != value}
    if differing:
        return f"changed since: {', '.join('input' if key == 'input_hash' else key for key in sorted(differing))}"
    return "" if missing else None


def read_facts(path: Path) -> dict[str, Any] | None:
    """What an edited file's metadata says of how it was made; None where it says nothing."""
    try:
        text = read_metadata(path).get(METADATA_KEY)
        return parse_json(text, str(path)) if text else None
    except (OSError, UserError):
        return None
