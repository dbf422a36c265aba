"""The command line of ``imvideoedit-fit``."""

import argparse
from pathlib import Path

from imvideoedit.common.errors import CommandLine
from imvideoedit.editing.model_options import stated_bytes
from imvideoedit.editing.sampling_config import QUALITIES
from imvideoedit.fitting.request import MODES, OFFLOADS, TRACKERS, FitRequest, parse_edited
from imvideoedit.video.encoder import KINDS

OF_REQUEST = (
    *("clip", "out", "mask", "prompt", "source_prompt", "start", "end", "backbone", "mode", "target", "rank", "steps"),
    *("rate", "seed", "tracker", "sam2", "eight_bit", "checkpointing", "offload"),
    "checkpoint_every",
)


def build_parser(description: str) -> CommandLine:
    """The options."""
    parser = CommandLine(prog="imvideoedit-fit", description=description)
    add = parser.add_argument
    add("clip", type=Path, help="video to edit")
    add(
        "--mask",
        required=True,
        metavar="FILE",
        help="white where the edit may be: an image or box:x,y,w,h of the first frame, which is followed through the "
        "clip; or a video or folder of images, one a frame",
    )
    add("--edited", action="append", required=True, metavar="N=FILE", help="frame N after the edit; repeat; also 0")
    add("--out", type=Path, required=True, metavar="FOLDER", help="takes the mask, the adapter and the edited clip")
    add("--prompt", help="full description after the edit; without it, IMVIDEOEDIT_ENDPOINT's model describes frames")
    add("--source-prompt", help="full description before the edit")
    add("--start", type=float, metavar="SECONDS", help="start of the range to edit")
    add("--end", type=float, metavar="SECONDS", help="end of the range to edit")
    add("--dry-run", action="store_true", help="check all that is given and say what it costs; make nothing")
    _add_fit(parser.add_argument_group("fit"))
    edit = parser.add_argument_group("edit").add_argument
    edit("--quality", choices=QUALITIES, default="best", help="draft and standard take fewer steps")
    edit("--keep", type=float, metavar="LEVEL", help="composite the source's pixels below this difference, 0 to 255")
    edit("--mask-feather", type=float, metavar="PIXELS", help="width of the fade around the mask; 0 for a hard edge")
    edit("--codec", choices=tuple(KINDS), help="default: by the clip's format")
    edit("--memory", default="auto", metavar="LEVEL|AMOUNT", help="of the edit, as in imvideoedit-edit")
    return parser


def _add_fit(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--max-area", type=int, metavar="PIXELS", help="most pixels of a frame at the model's size")
    add("--backbone", default=FitRequest.backbone, help="image-to-video model: a name, a folder or a hub id")
    add("--device", help="cpu, cuda, cuda:1, …; default: the GPU if there is one")
    add("--mode", choices=MODES, default=FitRequest.mode, help="low-cost trains on parts of 13 frames in turn")
    add("--target", choices=("paper", "release"), default=FitRequest.target, help="layers that are trained")
    add("--rank", type=int, default=FitRequest.rank, help="of the trained deltas")
    add("--steps", type=int, default=FitRequest.steps, help="of each of the two stages")
    add("--rate", type=float, help="learning rate; default: 1e-4, of nano 1e-3")
    add("--checkpoint-every", type=int, default=FitRequest.checkpoint_every, metavar="STEPS", help="to go on from")
    add("--seed", type=int, default=FitRequest.seed, help="of all that is random")
    add("--tracker", choices=TRACKERS, default=FitRequest.tracker, help="follows a still mask; auto: SAM 2 if cached")
    add("--sam2", metavar="FOLDER", help="weights of SAM 2 as transformers saves them")
    add("--optimizer-8bit", action="store_true", dest="eight_bit", help="AdamW with moments of 8 bits; on a GPU")
    add(
        "--offload",
        choices=OFFLOADS,
        default=FitRequest.offload,
        help="blocks on the GPU one by one, also while they train; auto: where they do not fit all at once",
    )
    add(
        "--no-checkpointing",
        action="store_false",
        dest="checkpointing",
        help="keep all activations: a third faster, with far more memory",
    )


def parse_request(arguments: argparse.Namespace) -> FitRequest:
    """The request of a command line.

    Raises:
        UserError: a value is out of its range, or a file is missing.
    """
    stated_bytes(arguments.memory)  # the edit comes after hours
    given = {name: getattr(arguments, name) for name in OF_REQUEST}
    return FitRequest(edited=parse_edited(arguments.edited), **given)
