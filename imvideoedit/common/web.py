"""Gradio pages on this machine: nothing is loaded from elsewhere, and no telemetry is sent."""

import asyncio
import contextlib
import importlib.util
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imvideoedit.common.errors import UserError

CLOSING_SECONDS = 2  # for open connections when the server ends
MEGABYTE = 2**20  # bytes, as in gradio's upload limit
MOST_EVENTS = 200  # of all browsers, waiting for each other
MOST_CONNECTIONS = 1000  # at once; a tab has a few
KEPT_SECONDS = 24 * 3600.0  # that a file is kept on the server
PARTIAL_SECONDS = 600.0  # without a byte more, after which an upload is given up
ALLOW_HOST = "name or address under which browsers reach the page, besides --host; give it again for more"


@dataclass(frozen=True)
class PageServer:
    """Where a page is served.

    Attributes:
        listener: its socket.
        names: by which it may be asked for, besides those of this machine alone.
        folder: for temporary files; goes when the server ends. Browsers get those in ``uploads`` only.
    """

    listener: socket.socket
    names: frozenset[str]
    folder: Path

    @property
    def uploads(self) -> Path:
        """What browsers send and get."""
        return self.folder / "uploads"


@contextlib.contextmanager
def page_server(host: str, port: int, stopped: str = "stopped", allow_host: Sequence[str] = ()) -> Iterator[PageServer]:
    """Listen, with a folder for temporary files that goes when the block ends; import gradio inside.

    Ctrl-C or SIGTERM ends the block and prints ``stopped``.

    Args:
        allow_host: names or addresses under which browsers reach the page, besides ``host``, and the address of this
            machine that they connect to.

    Raises:
        UserError: gradio is not installed, the port is taken, or the address does not exist here.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError("gradio is not installed; pip install 'imvideoedit[app]'")
    names = frozenset(name.strip().strip("[]").rstrip(".").lower() for name in (host, *allow_host))
    signal.signal(signal.SIGTERM, _interrupt)
    with (
        listening(host, port) as listener,
        tempfile.TemporaryDirectory(prefix="imvideoedit-", ignore_cleanup_errors=True) as folder,
    ):
        server = PageServer(listener, names, Path(folder))
        server.uploads.mkdir()
        os.environ["GRADIO_TEMP_DIR"] = str(server.uploads)
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        try:
            yield server
        except KeyboardInterrupt:
            print(stopped)


def serve(
    page: Any, server: PageServer, upload_bytes: int = MEGABYTE, kept_seconds: float = KEPT_SECONDS, **options: Any
) -> None:
    """Print the address of a ``gr.Blocks`` and serve it until Ctrl-C.

    Args:
        server: from :func:`page_server`.
        upload_bytes: most of an uploaded file; a larger one is refused while it arrives.
        kept_seconds: after which a file is removed from the server's folder; those there now stay.
        options: of ``gradio.mount_gradio_app``, such as ``css`` and ``allowed_paths``.
    """
    import gradio
    import uvicorn
    from fastapi import FastAPI

    from imvideoedit.common.web_guard import Guard

    app = FastAPI(openapi_url=None, lifespan=_lifespan(server, kept_seconds))
    # The system's own fonts: none is loaded.
    theme = gradio.themes.Default(
        font=("ui-sans-serif", "system-ui", "sans-serif"), font_mono=("ui-monospace", "Consolas", "monospace")
    )
    page.queue(max_size=MOST_EVENTS)
    options |= {"footer_links": [], "show_error": True, "ssr_mode": False, "run_history": False, "theme": theme}
    gradio.mount_gradio_app(app, page, "/", max_file_size=upload_bytes, **options)
    page.has_launched = True  # else gradio takes the path of any file on this machine for an uploaded one's
    config = uvicorn.Config(
        Guard(app, server.names, server.uploads, upload_bytes),
        log_level="error",
        lifespan="on",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=CLOSING_SECONDS,
    )
    host, port = server.listener.getsockname()[:2]
    print(f"open http://{f'[{host}]' if ':' in host else host}:{port} in a browser; Ctrl-C ends it", flush=True)
    uvicorn.Server(config).run(sockets=[server.listener])


def _lifespan(server: PageServer, seconds: float) -> Any:
    """For FastAPI: while the server runs, files that came into its folder meanwhile are removed when they are old."""
    from imvideoedit.common.uploads import remove_old

    kept = frozenset(server.folder.rglob("*"))
    broken_off = min(seconds, PARTIAL_SECONDS)

    async def clean() -> None:
        while True:
            await asyncio.sleep(broken_off)
            # Where gradio puts a file until all of it has arrived; it leaves those there that broke off.
            await asyncio.to_thread(remove_old, server.uploads.glob("tmp*"), broken_off, kept)
            await asyncio.to_thread(remove_old, server.folder.rglob("*"), seconds, kept)

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(clean())
        yield
        task.cancel()

    return lifespan


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
