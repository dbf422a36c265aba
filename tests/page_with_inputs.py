"""Serves the page with an adapter that declares inputs, and writes down what each edit was given and what came out.

Run as ``python -m tests.page_with_inputs FOLDER``; each edit leaves ``0.npz``, ``1.npz`` and so on there.
"""

import sys
from itertools import count
from pathlib import Path

import numpy as np
from transformers.utils import logging

from imvideoedit.common.errors import exit_cleanly
from imvideoedit.common.web import page_server, serve
from imvideoedit.edit_batch import Input
from imvideoedit.editing.pipeline import EditPipeline

DECLARED = (Input("first_frame", "image"), Input("style", "text", required=False))


class Recording(EditPipeline):
    """Edits as its base; keeps frames before any encoder loses some of them."""

    folder: Path
    numbers = count()

    def stream(self, open_frames, prompt, config, seed=0, progress=None, on_step=None, inputs=None):
        """See the base."""
        edited = np.stack(list(super().stream(open_frames, prompt, config, seed, progress, on_step, inputs)))
        given = {name: each if isinstance(each, str) else np.stack(list(each())) for name, each in inputs.items()}
        number = next(self.numbers)
        source = np.stack(list(open_frames()))
        np.savez(self.folder / f"unfinished_{number}.npz", source=source, edited=edited, **given)
        (self.folder / f"unfinished_{number}.npz").rename(self.folder / f"{number}.npz")
        yield from edited


@exit_cleanly
def main() -> None:
    """Until it is ended."""
    with page_server("127.0.0.1", 0) as server:
        from imvideoedit.app.build import build_page
        from imvideoedit.app.queue import EditQueue, Limits
        from imvideoedit.app.texts import CSS

        logging.disable_progress_bar()
        Recording.folder = Path(sys.argv[1])
        pipeline = Recording.from_pretrained(device="cpu")
        kind = type(pipeline.method)
        pipeline.method.__class__ = type("Asking", (kind,), {"inputs": DECLARED})
        queue = EditQueue(pipeline, Limits(1, 5))
        try:
            serve(build_page(queue, server.folder), server, css=CSS)
        finally:
            queue.close()


if __name__ == "__main__":
    main()
