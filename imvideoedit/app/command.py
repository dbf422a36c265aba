"""``imvideoedit-app``: a web page on this machine to edit videos in, with previews, comparison and download."""

from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.common.web import ALLOW_HOST, MEGABYTE, page_server, serve
from imvideoedit.editing.model_options import add_model_options, parse_model_options

MOST = 1e12  # megabytes or seconds


def build_parser() -> CommandLine:
    """The options."""
    parser = CommandLine(prog="imvideoedit-app", description=__doc__)
    add = parser.add_argument
    add_model_options(parser)
    add("--device", help="cpu, cuda, cuda:1, …; default: the GPU if there is one")
    add("--fit-backbone", default="nano_image_to_video", metavar="NAME", help="image-to-video model of fits")
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets the whole network in")
    add("--allow-host", action="append", default=[], metavar="NAME", help=ALLOW_HOST)
    add("--port", type=int, default=7860, help="0 takes a free one")
    add("--max-megabytes", type=float, default=200, metavar="MB", help="largest uploaded file")
    add("--max-seconds", type=float, default=60, metavar="SECONDS", help="longest range of a video to edit")
    return parser


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    """Entry point of ``imvideoedit-app``; Ctrl-C ends it and removes its temporary files."""
    arguments = build_parser().parse_args(argv)
    for name in ("max_megabytes", "max_seconds"):
        value = getattr(arguments, name)
        if not 0 < value < MOST:
            raise UserError(f"--{name.replace('_', '-')} is {value:g}; it must be above 0, and below {MOST:g}")
    options = parse_model_options(arguments)
    with page_server(arguments.host, arguments.port, allow_host=arguments.allow_host) as server:
        from imvideoedit.app.build import build_page
        from imvideoedit.app.fit_page import FitOptions
        from imvideoedit.app.fit_queue import FitQueue
        from imvideoedit.app.queue import EditQueue, Limits
        from imvideoedit.app.texts import CSS
        from imvideoedit.editing.edit_file import load_pipeline

        limits = Limits(arguments.max_megabytes, arguments.max_seconds)
        queue = EditQueue(load_pipeline(options, arguments.device), limits)
        fits, of_fits = FitQueue(queue.working), FitOptions(arguments.fit_backbone, arguments.device)
        try:
            size = int(arguments.max_megabytes * MEGABYTE)
            serve(build_page(queue, server.folder, fits, of_fits), server, size, css=CSS)
        finally:
            fits.close()
            queue.close()


if __name__ == "__main__":
    main()
