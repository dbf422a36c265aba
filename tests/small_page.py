"""Serves a page of a file and a text as every page is served; ``POST /gradio_api/run/say`` answers with both.

Run as ``python -m tests.small_page TITLE,HOST,KEPT_SECONDS,NAME ...``, a server for each argument, in a
process of its own that is forked after the slow imports. Each prints a line: its title, process, port and folder.
"""

import os
import signal
import sys

from imvideoedit.common.errors import exit_cleanly
from imvideoedit.common.web import page_server, serve

UPLOAD = 200_000  # bytes, the most of a file


def main() -> None:
    """Until all are ended."""
    import gradio  # noqa: F401

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    started = [argument for argument in sys.argv[1:] if os.fork() or serve_page(argument)]
    for _ in started:
        os.wait()


@exit_cleanly
def serve_page(argument: str) -> None:
    """In a process of its own, until it is ended."""
    title, host, seconds, *names = argument.split(",")
    with page_server(host, 0, allow_host=names) as server:
        import gradio as gr

        with gr.Blocks() as page:
            file, text, button = gr.File(), gr.Textbox(), gr.Button()
            button.click(lambda path, said: f"{path} {said}", [file, text], [text], queue=False, api_name="say")
        print(title, os.getpid(), server.listener.getsockname()[1], server.folder, flush=True)
        serve(page, server, UPLOAD, float(seconds))
    sys.exit()


if __name__ == "__main__":
    main()
