"""``imvideoedit-app``: a web page on this machine to edit videos in, with previews, comparison and download."""

import argparse
import importlib.util
import os
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any

from imvideoedit.errors import UserError, exit_cleanly
from imvideoedit.models import Model, add_model, given_model

# The page's own files, and what its scripts and styles need; a browser asks nobody else for anything.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"
CLOSING_SECONDS = 2  # for open connections when the app ends


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="imvideoedit-app", description=__doc__)
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
    if importlib.util.find_spec("gradio") is None:
        raise UserError("gradio is not installed; pip install 'imvideoedit[app]'")
    signal.signal(signal.SIGTERM, _interrupt)
    with _listening(arguments.host, arguments.port) as listener:
        try:
            _run(arguments, model, listener)
        except KeyboardInterrupt:
            print("stopped")


def _run(arguments: argparse.Namespace, model: Model, listener: socket.socket) -> None:
    with tempfile.TemporaryDirectory(prefix="imvideoedit-app-", ignore_cleanup_errors=True) as folder:
        _keep_to_itself(Path(folder))
        from imvideoedit.app_edits import Desk, Limits
        from imvideoedit.app_page import build_page
        from imvideoedit.editing import load

        limits = Limits(arguments.max_megabytes, arguments.max_seconds)
        desk = Desk(load(model, arguments.device), model.identity(), limits)
        try:
            _serve(build_page(desk, Path(folder)), listener, arguments)
        finally:
            desk.close()


def _keep_to_itself(folder: Path) -> None:
    """Before gradio is imported: its files go into ``folder``, and it tells nobody that it is used."""
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def _serve(page: Any, listener: socket.socket, arguments: argparse.Namespace) -> None:
    import gradio
    import uvicorn
    from fastapi import FastAPI

    from imvideoedit.app_edits import MEGABYTE
    from imvideoedit.app_texts import CSS, THEME

    server = FastAPI(openapi_url=None)
    gradio.mount_gradio_app(
        server,
        page,
        "/",
        footer_links=[],
        show_error=True,
        max_file_size=int(arguments.max_megabytes * MEGABYTE),
        ssr_mode=False,
        theme=THEME,
        css=CSS,
    )
    config = uvicorn.Config(
        _Policed(server), log_level="error", lifespan="on", timeout_graceful_shutdown=CLOSING_SECONDS
    )
    host, port = listener.getsockname()[:2]
    print(f"open http://{f'[{host}]' if ':' in host else host}:{port} in a browser; Ctrl-C ends it", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


class _Policed:
    """An ASGI app whose pages let a browser load from nowhere else."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self._app(scope, receive, with_policy)


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        UserError: the port is taken, or there is no such address here.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot listen on {host}, port {port} ({reason}); choose another --host or --port") from error


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
