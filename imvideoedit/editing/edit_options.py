"""The command line of ``imvideoedit-edit``: its options, and the job they describe."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imvideoedit.common.errors import CommandLine, UserError
from imvideoedit.editing.job import Job, edited_name
from imvideoedit.editing.job_inputs import FILE_INPUTS, read_inputs
from imvideoedit.editing.jobs import SETTINGS
from imvideoedit.editing.model_options import add_model_options
from imvideoedit.editing.prompts import WAYS
from imvideoedit.editing.sampling_config import QUALITIES, SOLVERS, SamplingConfig
from imvideoedit.video.encoder import KINDS

OF_JOB = ("prompt", "source_prompt", "expand", "expand_model", "quality", "start", "end", "fps", "codec", "seed")


def build_parser(description: str) -> CommandLine:
    """The options."""
    parser = CommandLine(prog="imvideoedit-edit", description=description)
    add = parser.add_argument
    add("input", type=Path, help="video or image; or a folder of them; or a .jsonl or .csv list of edits")
    add("instruction", nargs="?", help='what to change, such as "make the red box blue"')
    add_model_options(parser)
    add("--device", action="append", help="cpu, cuda, cuda:1, …; repeat for more GPUs with a list or folder")
    add("--output", type=Path, help="file to write; default: INPUT_edited.mp4; for a folder or a list, a folder")
    add("--side-by-side", action="store_true", help="also write source and edit side by side")
    text = parser.add_argument_group("text").add_argument
    text("--prompt", help="full description after the edit, instead of one made from the instruction")
    text("--source-prompt", help="full description before the edit")
    text(
        "--expand",
        choices=WAYS,
        help="how the instruction becomes a prompt; default: grammar on nano, else none",
    )
    text("--expand-model", help="vision-language model for --expand local: a folder or a hub id")
    _add_inputs(parser.add_argument_group("inputs; a mask goes with any adapter, the others with those that take them"))
    video = parser.add_argument_group("video").add_argument
    video("--start", type=float, metavar="SECONDS", help="start of the range to edit")
    video("--end", type=float, metavar="SECONDS", help="end of the range to edit")
    video("--fps", type=float, help="constant frame rate of the output; default: the source's own times")
    video("--codec", choices=tuple(KINDS), help="default: by the output's name")
    _add_sampling(parser.add_argument_group("sampling; defaults are the adapter's own"))
    return parser


def _add_inputs(group: Any) -> None:
    add = group.add_argument
    add("--mask", metavar="FILE", help="white where the edit may be: image, video, folder of images, or box:x,y,w,h")
    add("--mask-feather", type=float, metavar="PIXELS", help="width of the fade around the mask; 0 for a hard edge")
    add("--first-frame", metavar="FILE", help="image of the first frame after the edit")
    add("--reference", metavar="FILE", help="image of what the edit shall show")
    add(
        "--input", action="append", dest="inputs", metavar="NAME=FILE", help="whatever else an adapter takes; or a text"
    )


def _add_sampling(group: Any) -> None:
    add = group.add_argument
    add("--quality", choices=QUALITIES, default="best", help="draft and standard take fewer steps")
    add("--steps", type=int, help="solver steps")
    add("--solver", choices=SOLVERS)
    add("--guidance", type=float, metavar="SCALE", help="of classifier-free guidance, at least 1")
    add("--guided-share", type=float, metavar="SHARE", help="share of the steps, the first ones, with guidance; 0 to 1")
    add("--source-guidance", type=float, metavar="SCALE", help="above 1 follows the source more, below 1 less")
    add("--strength", type=float, help="below 1 starts from the noised source, which keeps its layout; up to 1")
    add("--shift", type=float, help="flow shift of the schedule")
    add("--cache", type=float, metavar="CHANGE", help="threshold of First Block Cache, 0 for off; try 0.1")
    add("--keep", type=float, metavar="LEVEL", help="composite the source's pixels below this difference, 0 to 255")
    add("--max-area", type=int, metavar="PIXELS", help="most pixels of a frame at the model's size")
    add("--max-frames", type=int, metavar="FRAMES", help="most frames of a window; 4k + 1")
    add("--overlap", type=int, metavar="FRAMES", help="frames that neighbouring windows share")
    add("--seed", type=int, default=0, help="of the noise")


def parse_job(arguments: argparse.Namespace) -> Job:
    """The job of a command line.

    Raises:
        UserError: a setting is out of its range, or an input is none.
    """
    settings = {name: value for name in SETTINGS if (value := getattr(arguments, name)) is not None}
    try:
        SamplingConfig().override(**settings)
    except UserError as error:
        raise UserError("--" + str(error).replace("_", "-")) from error
    return Job(
        arguments.input,
        arguments.instruction or "",
        arguments.output or arguments.input.parent / edited_name(arguments.input),
        side_by_side=arguments.side_by_side,
        settings=settings,
        inputs=read_inputs(_named_inputs(arguments)),
        **{name: getattr(arguments, name) for name in OF_JOB},
    )


def _named_inputs(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    for name in FILE_INPUTS:
        if (value := getattr(arguments, name)) is not None:
            yield name, value
    for text in arguments.inputs or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--input {text} names no input; give --input NAME=FILE")
        yield name, value
