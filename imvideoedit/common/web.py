"""Gradio pages on this machine: nothing is loaded from elsewhere, and no telemetry is sent."""

import importlib.util
import os
import signal
import socket
from pathlib import Path
from typing import Any

from imvideoedit.common.errors import UserError

# The page's own files, and what its scripts and styles need; a browser asks nobody else for anything.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"
CLOSING_SECONDS = 2  # for open connections when the server ends
MEGABYTE = 2**20  # bytes, as the upload counts too


def require_gradio() -> None:
    """Raise a ``UserError`` where gradio is not installed."""
    if importlib.util.find_spec("gradio") is None:
        raise UserError("gradio is not installed; pip install 'imvideoedit[app]'")


def end_on_terminate() -> None:
    """Make SIGTERM end the program as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _interrupt)


def keep_to_itself(folder: Path) -> None:
    """Before gradio is imported: its files go into ``folder``, and it tells nobody that it is used."""
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def serve(page: Any, listener: socket.socket, **looks: Any) -> None:
    """Serve a ``gr.Blocks`` until Ctrl-C, after a line with its address.

    Args:
        page: to serve.
        listener: see ``listening``.
        looks: of ``gradio.mount_gradio_app``, as ``css``, ``max_file_size`` and ``allowed_paths``.
    """
    import gradio
    import uvicorn
    from fastapi import FastAPI

    server = FastAPI(openapi_url=None)
    # Fonts of the reader's own system: none is loaded.
    theme = gradio.themes.Default(
        font=("ui-sans-serif", "system-ui", "sans-serif"), font_mono=("ui-monospace", "Consolas", "monospace")
    )
    gradio.mount_gradio_app(server, page, "/", footer_links=[], show_error=True, ssr_mode=False, theme=theme, **looks)
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


def listening(host: str, port: int) -> socket.socket:
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
