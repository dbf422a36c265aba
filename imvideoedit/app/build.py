"""The whole page: its tabs, of which each has its components and events in files of its own."""

import contextlib
from pathlib import Path

import gradio as gr

from imvideoedit.app.fit_layout import FitLayout
from imvideoedit.app.fit_page import FitOptions, FitPage
from imvideoedit.app.fit_queue import FitQueue
from imvideoedit.app.layout import Layout
from imvideoedit.app.page import Page
from imvideoedit.app.queue import EditQueue
from imvideoedit.app.samples import render_samples


def build_page(
    queue: EditQueue, folder: Path, fits: FitQueue | None = None, options: FitOptions | None = None
) -> gr.Blocks:
    """The page of a queue of edits.

    Args:
        folder: for samples and results.
        fits: of the tab that fits an adapter to one clip; None for no such tab.
        options: of the fits.

    Raises:
        UserError: the disk refuses the samples.
    """
    (folder / "samples").mkdir()
    samples, results = render_samples(folder / "samples"), folder / "results"
    pipeline = queue.pipeline
    with gr.Blocks(title="imvideoedit") as blocks:
        declared = pipeline.method.inputs
        with gr.Tab("Edit") if fits else contextlib.nullcontext():
            layout = Layout(queue.limits, pipeline.config, pipeline.backbone.is_nano, samples, declared)
        if fits is not None:
            with gr.Tab("Fit to one clip", elem_id="fit-tab"):
                fit_layout = FitLayout(queue.limits)
            FitPage(fits, fit_layout, queue.limits, options or FitOptions(), results).connect(blocks)
        Page(queue, layout, samples, results).connect(blocks)
    return blocks
