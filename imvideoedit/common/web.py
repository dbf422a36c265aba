"""Gradio pages on this machine: nothing is loaded from elsewhere, and no telemetry is sent."""

import contextlib
import importlib.util
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imvideoedit.common.errors import UserError

# The page's own files, and what its scripts and styles need; the browser requests nothing from other hosts.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"
CLOSING_SECONDS = 2  # for open connections when the server ends
MEGABYTE = 2**20  # bytes, as in gradio's upload limit


@contextlib.contextmanager
def page_server(host: str, port: int, stopped: str = "stopped") -> Iterator[tuple[socket.socket, Path]]:
    """A listening socket, and a folder for temporary files that goes when the block ends; import gradio inside.

    Ctrl-C or SIGTERM ends the block and prints ``stopped``.

    Raises:
        UserError: gradio is not installed, the port is taken, or the address does not exist here.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError("gradio is not installed; pip install 'imvideoedit[app]'")
    signal.signal(signal.SIGTERM, _interrupt)
    with (
        listening(host, port) as listener,
        tempfile.TemporaryDirectory(prefix="imvideoedit-", ignore_cleanup_errors=True) as folder,
    ):
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "uploads")
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        try:
            yield listener, Path(folder)
        except KeyboardInterrupt:
            print(stopped)


def serve(page: Any, listener: socket.socket, **options: Any) -> None:
    """Print the address of a ``gr.Blocks`` and serve it until Ctrl-C.

    Args:
        listener: from :func:`page_server`.
        options: of ``gradio.mount_gradio_app``, such as ``css``, ``max_file_size`` and ``allowed_paths``.
    """
    import gradio
    import uvicorn
    from fastapi import FastAPI

    server = FastAPI(openapi_url=None)
    # The system's own fonts: none is loaded.
    theme = gradio.themes.Default(
        font=("ui-sans-serif", "system-ui", "sans-serif"), font_mono=("ui-monospace", "Consolas", "monospace")
    )
    gradio.mount_gradio_app(server, page, "/", footer_links=[], show_error=True, ssr_mode=False, theme=theme, **options)
    config = uvicorn.Config(
        _WithPolicy(server), log_level="error", lifespan="on", timeout_graceful_shutdown=CLOSING_SECONDS
    )
    host, port = listener.getsockname()[:2]
    print(f"open http://{f'[{host}]' if ':' in host else host}:{port} in a browser; Ctrl-C ends it", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


class _WithPolicy:
    """An ASGI app with the content security policy in every response."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self._app(scope, receive, with_policy)


def listening(host: str, port: int) -> socket.socket:
    """A listening socket.

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
