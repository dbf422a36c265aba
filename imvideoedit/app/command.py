"""``imvideoedit-app``: a web page on this machine to edit videos in, with previews, comparison and download."""

import argparse
import socket
import tempfile
from pathlib import Path

from imvideoedit.common.errors import CommandLine, UserError, exit_cleanly
from imvideoedit.common.web import MEGABYTE, end_on_terminate, keep_to_itself, listening, require_gradio, serve
from imvideoedit.editing.model_options import Model, add_model, given_model


def build_parser() -> CommandLine:
    """The command line."""
    parser = CommandLine(prog="imvideoedit-app", description=__doc__)
    add = parser.add_argument
    add_model(parser)
    add("--device", help="cpu, cuda, cuda:1, …; the GPU if there is one")
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets the whole network in")
    add("--port", type=int, default=7860, help="0 takes a free one")
    add("--max-megabytes", type=float, default=200, metavar="MB", help="of an uploaded file")
    add("--max-seconds", type=float, default=60, metavar="SECONDS", help="of video edited at a time")
    return parser


@exit_cleanly
def main(argv: list[str] | None = None) -> None:
    """Entry point of ``imvideoedit-app``; it ends with Ctrl-C, and its temporary files with it."""
    arguments = build_parser().parse_args(argv)
    for name in ("max_megabytes", "max_seconds"):
        if not getattr(arguments, name) > 0:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(arguments, name):g}; it must be above 0")
    model = given_model(arguments)
    require_gradio()
    end_on_terminate()
    with listening(arguments.host, arguments.port) as listener:
        try:
            _run(arguments, model, listener)
        except KeyboardInterrupt:
            print("stopped")


def _run(arguments: argparse.Namespace, model: Model, listener: socket.socket) -> None:
    with tempfile.TemporaryDirectory(prefix="imvideoedit-app-", ignore_cleanup_errors=True) as folder:
        keep_to_itself(Path(folder))
        from imvideoedit.app.page import build_page
        from imvideoedit.app.queue import Desk, Limits
        from imvideoedit.app.texts import CSS
        from imvideoedit.editing.edit_file import load

        limits = Limits(arguments.max_megabytes, arguments.max_seconds)
        desk = Desk(load(model, arguments.device), model.identity(), limits)
        try:
            size = int(arguments.max_megabytes * MEGABYTE)
            serve(build_page(desk, Path(folder)), listener, max_file_size=size, css=CSS)
        finally:
            desk.close()


if __name__ == "__main__":
    main()
