"""``imvideoedit-fit clip.mp4 --mask mask.png --edited 0=frame.png --prompt "…" --out my_clip/``: one clip, one adapter.

Follows the mask through the clip, trains a small adapter of this clip in two stages, and edits the clip by the frames
that were edited. The same command goes on where it was stopped. ``imvideoedit-edit clip.mp4 --adapter
my_clip/adapter.safetensors --first-frame OTHER.png`` then edits the clip again, without training.
"""

from imvideoedit.common.errors import exit_cleanly
from imvideoedit.common.owner import owned
from imvideoedit.common.terminal import say
from imvideoedit.fitting.options import build_parser, parse_request

OF_SAMPLING = ("keep", "mask_feather", "max_area")


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    """Entry point of ``imvideoedit-fit``."""
    arguments = build_parser(__doc__ or "").parse_args(argv)
    request = parse_request(arguments)
    from imvideoedit.editing.edit_file import check_device
    from imvideoedit.fitting.plan import Plan
    from imvideoedit.fitting.run import FitRun
    from imvideoedit.training.stopping import TrainingStopped
    from imvideoedit.wan.locations import default_device

    check_device(arguments.device)
    device = default_device(arguments.device)
    plan = Plan.of(request, **{name: getattr(arguments, name) for name in OF_SAMPLING})
    for line in plan.lines(device):
        say(line)
    if arguments.dry_run:
        return
    with owned(request.out, "a fit"):
        try:
            FitRun(plan, device, say)(quality=arguments.quality, codec=arguments.codec, memory=arguments.memory)
        except TrainingStopped as stopped:
            say(stopped)


if __name__ == "__main__":
    main()
