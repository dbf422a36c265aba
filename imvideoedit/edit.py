"""``imvideoedit-edit input.mp4 "instruction"``: edit every frame of a video file; rate, length, size and sound stay."""

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import imvideoedit
from imvideoedit.errors import UserError, exit_cleanly
from imvideoedit.settings import Defaults

if TYPE_CHECKING:
    from imvideoedit.pipeline import EditPipeline, EditResult

BUNDLED = Path(__file__).parent / "nano" / "adapter.safetensors"
METADATA_KEY = "imvideoedit"
NANO_NOTE = (
    "note: this adapter edits scenes of the nano world only; of real footage it makes nonsense. "
    "For that, train or get an adapter for Wan."
)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="imvideoedit-edit", description=__doc__)
    parser.add_argument("input", type=Path, help="video (or still image) to edit")
    parser.add_argument("instruction", help='what to change, such as "make the red box blue"')
    parser.add_argument(
        "--adapter", type=Path, default=BUNDLED, help="trained adapter; the bundled nano one by default"
    )
    parser.add_argument("--output", type=Path, help="mp4 to write; INPUT_edited.mp4 by default")
    parser.add_argument("--side-by-side", action="store_true", help="also write OUTPUT_side_by_side.mp4")
    parser.add_argument("--prompt", help="full description after the edit, in place of one made from the instruction")
    parser.add_argument("--source-prompt", help="full description before the edit")
    parser.add_argument("--steps", type=int, help="solver steps; the adapter's own by default")
    parser.add_argument("--guidance", type=float, help="text guidance, at least 1; the adapter's own by default")
    parser.add_argument(
        "--source-guidance",
        type=float,
        metavar="SCALE",
        help="above 1 holds on to the source more, below 1 less, for another pass; the adapter's own by default",
    )
    parser.add_argument(
        "--strength", type=float, help="below 1 starts from the noised source, whose layout then stays; up to 1"
    )
    parser.add_argument(
        "--keep",
        type=float,
        metavar="LEVEL",
        help="give back the source's own pixels where the edit differs by less than this many grey levels, 0 to 255; "
        "0 for never; the adapter's own by default",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, …; the GPU if there is one by default")
    return parser


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    """Entry point of ``imvideoedit-edit``."""
    arguments = build_parser().parse_args(argv)
    output = arguments.output or arguments.input.with_name(f"{arguments.input.stem}_edited.mp4")
    _check(arguments, output)
    from imvideoedit.data.video import read_video, write_video

    video_FHWC, info = read_video(arguments.input)
    pipeline = _load(arguments)
    if pipeline.backbone.name == "nano":
        print(NANO_NOTE, file=sys.stderr)
    result = _edit(pipeline, video_FHWC, arguments)
    sound = arguments.input if info.has_audio else None
    metadata = _metadata(pipeline, result, arguments)
    write_video(output, result.frames, info.fps, sound, metadata)
    print(f"wrote {output} ({len(result.frames)} frames, {info.width}x{info.height}, {float(info.fps):g} fps)")
    if arguments.side_by_side:
        beside = output.with_name(f"{output.stem}_side_by_side.mp4")
        pairs = (_beside(*frames) for frames in zip(video_FHWC, result.frames, strict=True))
        write_video(beside, pairs, info.fps, sound, metadata)
        print(f"wrote {beside}")


def _check(arguments: argparse.Namespace, output: Path) -> None:
    """Everything that can be told from the arguments and the file system, before the slow imports."""
    given = arguments.input
    if not given.is_file():
        raise UserError(f"there is no video at {given}; check the path")
    if given.stat().st_size == 0:
        raise UserError(f"{given} is empty; give a video")
    if not arguments.adapter.is_file():
        raise UserError(f"there is no adapter at {arguments.adapter}; check --adapter, or train one")
    if output.suffix.lower() != ".mp4":
        raise UserError(f"cannot write {output}: the output must end in .mp4")
    if output.resolve() == given.resolve():
        raise UserError(f"the output {output} is the input; give another --output")
    if not output.parent.is_dir():
        raise UserError(f"the folder {output.parent} of the output does not exist; make it, or change --output")
    try:
        Defaults().with_given(**_settings(arguments))
    except UserError as error:
        raise UserError("--" + str(error).replace("_", "-")) from error


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What of the settings was given."""
    return {name: getattr(arguments, name) for name in ("steps", "guidance", "source_guidance", "strength", "keep")}


def _load(arguments: argparse.Namespace) -> "EditPipeline":
    import torch
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from imvideoedit.pipeline import EditPipeline

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        torch.empty(0, device=arguments.device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {arguments.device} cannot be used here ({str(error).splitlines()[0]})") from error
    return EditPipeline.from_pretrained(adapter=arguments.adapter, device=arguments.device)


def _edit(pipeline: "EditPipeline", video_FHWC: Any, arguments: argparse.Namespace) -> "EditResult":
    columns = (TextColumn("editing"), BarColumn(), TextColumn("{task.completed}/{task.total} steps"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("editing", total=None)
        return pipeline(
            video_FHWC,
            arguments.instruction,
            prompt=arguments.prompt,
            source_prompt=arguments.source_prompt,
            seed=arguments.seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            **_settings(arguments),
        )


def _metadata(pipeline: "EditPipeline", result: "EditResult", arguments: argparse.Namespace) -> dict[str, str]:
    """What is needed to make the video again, as JSON under one key of the file."""
    from imvideoedit.checkpoint import adapter_hash

    facts = {
        "instruction": arguments.instruction,
        "prompt": result.prompt,
        "source_prompt": result.source_prompt,
        "seed": result.seed,
        "settings": vars(result.settings),
        "adapter_hash": adapter_hash(arguments.adapter),
        "backbone": pipeline.backbone.name,
        "versions": {"imvideoedit": imvideoedit.__version__, **{n: version(n) for n in ("torch", "diffusers")}},
    }
    return {METADATA_KEY: json.dumps(facts), "comment": f"imvideoedit: {arguments.instruction}"}


def _beside(left_HWC: Any, right_HWC: Any) -> Any:
    import numpy as np

    return np.concatenate([left_HWC, right_HWC], axis=1)


if __name__ == "__main__":
    main()
