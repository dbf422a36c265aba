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
from imvideoedit.editing.sampling_config import HELP, QUALITIES, RANGES, SOLVERS, SamplingConfig
from imvideoedit.video.encoder import KINDS

SAMPLING: tuple[tuple[str, type, str | None], ...] = (
    ("steps", int, None),
    ("guidance", float, "SCALE"),
    ("guided_share", float, "SHARE"),
    ("source_guidance", float, "SCALE"),
    ("strength", float, None),
    ("shift", float, None),
    ("cache", float, "CHANGE"),
    ("keep", float, "LEVEL"),
    ("max_area", int, "PIXELS"),
    ("max_frames", int, "FRAMES"),
    ("overlap", int, "FRAMES"),
)
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
    add("--mask-feather", type=float, metavar="PIXELS", help=HELP["mask_feather"])
    add("--first-frame", metavar="FILE", help="image of the first frame after the edit")
    add("--reference", metavar="FILE", help="image of what the edit shall show")
    add(
        "--input", action="append", dest="inputs", metavar="NAME=FILE", help="whatever else an adapter takes; or a text"
    )


def _add_sampling(group: Any) -> None:
    add = group.add_argument
    add("--quality", choices=QUALITIES, default="best", help="draft and standard take fewer steps")
    for name, kind, shown in SAMPLING:
        add(f"--{name.replace('_', '-')}", type=kind, metavar=shown, help=f"{HELP[name]}; {RANGES[name][2]}")
    add("--solver", choices=SOLVERS, help=HELP["solver"])
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
