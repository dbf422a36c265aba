"""One edit by several processes, each on a device of its own, as torchrun starts them.

The first process leads: it reads, encodes, decodes, writes and speaks. The others hold the transformer and the method
alone, wait for what is to be denoised, and run the same passes, each on its part of the frames, see
:mod:`imvideoedit.wan.token_split`. Whatever goes wrong in one process ends all of them, in one line.
"""

import contextlib
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import EditBatch
from imvideoedit.editing.chosen_base import load_chosen
from imvideoedit.editing.denoiser import Denoiser, windows_of
from imvideoedit.editing.edit_file import REMEDY, load_pipeline
from imvideoedit.editing.job import Job
from imvideoedit.editing.model_options import ModelOptions
from imvideoedit.editing.pipeline import EditPipeline
from imvideoedit.editing.processes import Processes
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.editing.shown import edit_shown
from imvideoedit.methods.adapter_header import read_header
from imvideoedit.methods.keep_plan import KeepPlan
from imvideoedit.wan.locations import default_device, default_dtype
from imvideoedit.wan.token_split import split_tokens

END, FAILED = "end", "failed"  # messages in place of work


@dataclass(frozen=True)
class Work:
    """A video to denoise: a :class:`Denoiser` without its model, and its arguments, on the CPU."""

    config: SamplingConfig
    shift: float
    group: int
    batch: EditBatch
    seed: int
    keep: KeepPlan | None


def edit_together(
    job: Job, options: ModelOptions, devices: Sequence[str] | None, check: Callable[[], None], loud: Any
) -> None:
    """As :func:`imvideoedit.editing.shown.edit_shown`, in every process of a launcher.

    Args:
        devices: of the command line.
        check: what is checked before the model is loaded.
        loud: the standard error of this process.

    Raises:
        UserError: what ``edit_shown`` and ``load_pipeline`` raise, or the edit cannot be shared.
        SystemExit: in another process than the first: the edit failed.
    """
    device = device_of_process(devices)
    if options.compile:
        raise UserError("--compile is not for several processes, which compiled blocks cannot share; leave it out")
    # A launcher ends the others when one fails: they leave no half-written file either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    processes = Processes(device, loud, REMEDY)
    if processes.rank:
        _follow(processes, partial(_load_transformer, options, device))
        return

    def load() -> EditPipeline:
        check()
        return load_pipeline(options, str(device))

    with _leading(processes, load) as pipeline:
        edit_shown(pipeline, job)


def device_of_process(devices: Sequence[str] | None) -> torch.device:
    """The device of this process: a GPU of its own, or the CPU.

    Args:
        devices: of the command line.

    Raises:
        UserError: they name one GPU, or several; or there is no GPU for each process.
    """
    chosen = list(devices or ["cuda"])
    if chosen not in (["cuda"], ["cpu"]):
        raise UserError(
            f"--device {' '.join(chosen)} is not for several processes, each of which takes a GPU of its own; leave it "
            "out, or give --device cpu"
        )
    device = default_device("cpu" if chosen == ["cpu"] else None)
    if devices and device.type != chosen[0]:
        raise UserError("--device cuda cannot be used here, where torch finds no GPU; leave it out")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if device.type == "cuda" and here > torch.cuda.device_count():
        raise UserError(
            f"{here} processes share {torch.cuda.device_count()} GPUs here, but each takes one of its own; start fewer "
            "(--nproc-per-node)"
        )
    return device


def _load_transformer(options: ModelOptions, device: torch.device) -> EditPipeline:
    """A pipeline that only denoises."""
    header = read_header(options.adapters[0][0])
    backbone = load_chosen(header, options.base, options.quantization, default_dtype(device), parts=())
    return load_pipeline(options, str(device), backbone)


@contextlib.contextmanager
def _leading(processes: Processes, load: Callable[[], EditPipeline]) -> Iterator[EditPipeline]:
    """In the first process: inside, the others serve the pipeline that ``load`` makes; behind it all end."""
    pipeline, passing = _shared(processes, load), False

    @contextlib.contextmanager
    def sharing(denoiser: Denoiser, batch: EditBatch, seed: int) -> Iterator[None]:
        nonlocal passing
        config = denoiser.config
        if config.cache:
            raise UserError(
                f"cache is {config.cache:g}, but First Block Cache is not for several processes, each of which sees "
                "its own tokens alone; set --cache 0"
            )
        processes.send(Work(config, denoiser.shift, denoiser.group, batch.to("cpu"), seed, denoiser.keep))
        passing = True
        with processes.one_failure():
            yield
        passing = False

    pipeline.sharing = sharing
    try:
        yield pipeline
    except BaseException:
        if not passing:  # else the others hear of it in their passes
            with contextlib.suppress(UserError):  # one is gone already
                processes.send(FAILED)
        raise
    processes.send(END)
    processes.leave()


def _follow(processes: Processes, load: Callable[[], EditPipeline]) -> None:
    """In another process: denoise with the first one until that ends."""
    pipeline = _shared(processes, load)
    while (work := processes.receive()) != END:
        if work == FAILED:
            raise SystemExit(2)
        with processes.one_failure():
            _denoise(pipeline, work, processes.count)
    processes.leave()


def _shared(processes: Processes, load: Callable[[], EditPipeline]) -> EditPipeline:
    pipeline = processes.every(load)
    split_tokens(pipeline.backbone.transformer, processes.device)
    return pipeline


def _denoise(pipeline: EditPipeline, work: Work, count: int) -> None:
    """The first process's passes, for the part of the tokens that is this one's."""
    transformer: Any = pipeline.backbone.transformer
    frames, height, width = work.batch.source_BCFHW.shape[2:]
    window = windows_of(frames, work.config, work.group)[0]
    tokens = (window.stop - window.start) * height * width // math.prod(transformer.config.patch_size)
    pipeline.placement.fit(work.config, -(-tokens // count), height * width)
    denoiser = Denoiser(transformer, pipeline.method, work.shift, work.group, work.config, work.keep)
    with pipeline.placement.working(transformer):
        denoiser(work.batch.to(pipeline.placement.device), work.seed)
