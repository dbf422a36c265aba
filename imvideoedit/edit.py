"""``imvideoedit-edit input.mp4 "instruction"``: edit a video; rate, length, size and sound stay.

The input may also be a folder of videos, or a list of edits: a .jsonl or .csv with the columns input and instruction.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.editing.jobs import LISTS, STILLS, Job, check_job, read_jobs
from imvideoedit.editing.model_options import Model, add_model, given_model
from imvideoedit.editing.sampling_config import SamplingConfig

if TYPE_CHECKING:
    from imvideoedit.editing.edit_file import Expansion
    from imvideoedit.editing.pipeline import EditPipeline

SETTINGS = (
    *("steps", "solver", "guidance", "guided_share", "source_guidance", "strength", "cache", "keep"),
    *("max_area", "max_frames", "overlap"),
)
SOME_FAILED = 1  # exit code of a batch in which a job failed
NANO_NOTE = (
    "note: this adapter edits scenes of the nano world only; of real footage it makes nonsense. "
    "For that, train or get an adapter for Wan."
)


def build_parser() -> CommandLine:
    """The command line."""
    parser = CommandLine(prog="imvideoedit-edit", description=__doc__)
    add = parser.add_argument
    add("input", type=Path, help="video or image; or a folder of them; or a .jsonl or .csv list of edits")
    add("instruction", nargs="?", help='what to change, such as "make the red box blue"')
    add_model(parser)
    add("--output", type=Path, help="file to write, INPUT_edited.mp4 by default; for a folder or a list, a folder")
    add("--side-by-side", action="store_true", help="also write source and edit beside each other")
    text = parser.add_argument_group("text")
    text.add_argument("--prompt", help="full description after the edit, in place of one made from the instruction")
    text.add_argument("--source-prompt", help="full description before the edit")
    text.add_argument(
        "--expand", choices=("none", "grammar", "local", "endpoint"), help="how the instruction becomes a full prompt"
    )
    text.add_argument("--expand-model", help="vision-language model for --expand local: a folder or a hub id")
    video = parser.add_argument_group("video")
    video.add_argument("--start", type=float, metavar="SECONDS", help="edit from here on")
    video.add_argument("--end", type=float, metavar="SECONDS", help="edit up to here")
    video.add_argument("--fps", type=float, help="constant rate of the output; the source's own times by default")
    video.add_argument("--codec", choices=("h264", "h265", "av1", "lossless", "png"), help="by the output's name")
    _add_settings(parser.add_argument_group("editing; what is not given is the adapter's own"))
    add("--device", action="append", help="cpu, cuda, cuda:1, …; once more for each further GPU of a batch")
    return parser


def _add_settings(group: Any) -> None:
    add = group.add_argument
    add("--quality", choices=("draft", "standard", "best"), default="best", help="draft and standard take less time")
    add("--steps", type=int, help="solver steps")
    add("--solver", choices=("euler", "unipc"))
    add("--guidance", type=float, metavar="SCALE", help="by the text, at least 1")
    add("--guided-share", type=float, metavar="SHARE", help="of the steps, the first ones, that have guidance; 0 to 1")
    add("--source-guidance", type=float, metavar="SCALE", help="above 1 holds on to the source more, below 1 less")
    add("--strength", type=float, help="below 1 starts from the noised source, whose layout then stays; up to 1")
    add("--cache", type=float, metavar="CHANGE", help="of the first block, below which a step skips the rest; try 0.1")
    add(
        "--keep",
        type=float,
        metavar="LEVEL",
        help="grey levels below which the source's own pixels come back, 0 to 255",
    )
    add("--max-area", type=int, metavar="PIXELS", help="of a frame that the model sees, at most")
    add("--max-frames", type=int, metavar="FRAMES", help="that the model sees at a time; 4k + 1")
    add("--overlap", type=int, metavar="FRAMES", help="that neighbouring windows of a longer video share")
    add("--seed", type=int, default=0, help="of the noise")


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    """Entry point of ``imvideoedit-edit``."""
    arguments = build_parser().parse_args(argv)
    model = given_model(arguments)
    job = _job(arguments)
    many = arguments.input.is_dir() or arguments.input.suffix.lower() in LISTS
    if many and arguments.input.exists():
        _edit_many(arguments, model, job)
    else:
        _edit_one(arguments, model, job)


def _job(arguments: argparse.Namespace) -> Job:
    settings = {name: getattr(arguments, name) for name in SETTINGS if getattr(arguments, name) is not None}
    try:
        SamplingConfig().with_given(**settings)
    except UserError as error:
        raise UserError("--" + str(error).replace("_", "-")) from error
    suffix = ".png" if arguments.input.suffix.lower() in STILLS else ".mp4"
    own = ("prompt", "source_prompt", "expand", "expand_model", "quality", "start", "end", "fps", "codec", "seed")
    return Job(
        arguments.input,
        arguments.instruction or "",
        arguments.output or arguments.input.with_name(f"{arguments.input.stem}_edited{suffix}"),
        side_by_side=arguments.side_by_side,
        settings=settings,
        **{name: getattr(arguments, name) for name in own},
    )


def _edit_one(arguments: argparse.Namespace, model: Model, job: Job) -> None:
    if not job.instruction:
        raise UserError('there is no instruction; say what to change: imvideoedit-edit VIDEO "make the red box blue"')
    if not job.output.parent.is_dir():
        raise UserError(f"the folder {job.output.parent} of the output does not exist; make it, or change --output")
    check_job(job)
    from imvideoedit.video.reader import probe

    info = probe(job.input, job.start, job.end, job.fps)  # what is wrong with a file is told before the model is loaded
    from imvideoedit.editing.edit_file import beside, edit_file, load

    pipeline = load(model, _devices(arguments)[0])
    _note(pipeline)
    columns = (TextColumn("editing"), BarColumn(), TextColumn("{task.completed}/{task.total} passes"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("editing", total=None)
        texts = edit_file(
            pipeline, job, model.identity(), lambda done, total: bar.update(task, completed=done, total=total)
        )
    _tell(texts, job)
    print(f"wrote {job.output} ({info.frames} frames, {info.width}x{info.height}, {float(info.fps):g} fps)")
    if job.side_by_side:
        print(f"wrote {beside(job.output)}")


def _edit_many(arguments: argparse.Namespace, model: Model, job: Job) -> None:
    entries = read_jobs(arguments.input, arguments.instruction, arguments.output, job)
    from imvideoedit.editing.run_jobs import MARKS, run_batch, show

    def told(outcome) -> None:
        name = outcome.entry.job.output if outcome.entry.job else outcome.entry.where
        print(f"{name}: {MARKS[outcome.state]}{f' ({outcome.words})' if outcome.words else ''}", flush=True)

    outcomes = run_batch(entries, model, _devices(arguments), told)
    show(outcomes)
    if any(outcome.state == "failed" for outcome in outcomes):
        raise SystemExit(SOME_FAILED)


def _devices(arguments: argparse.Namespace) -> list[str | None]:
    return arguments.device or [None]


def _note(pipeline: "EditPipeline") -> None:
    if pipeline.backbone.name == "nano":
        print(NANO_NOTE, file=sys.stderr)


def _tell(texts: "Expansion", job: Job) -> None:
    """How the instruction was understood, where it was not used as it is."""
    if texts.note:
        print(f"note: {texts.note}", file=sys.stderr)
    if texts.prompt != job.instruction and job.prompt is None:
        print(f"prompt: {texts.prompt}")


if __name__ == "__main__":
    main()
