"""The components of the page's tab that fits an adapter to one clip; their events are in ``fit_page``."""

from typing import Any

import gradio as gr

from imvideoedit.app.inputs import mask_editor
from imvideoedit.app.queue import Limits
from imvideoedit.app.texts import message
from imvideoedit.fitting.request import STEPS

INTRO = """Edit **one frame** of a clip with any tool; the clip follows it. A small adapter is trained for this clip
alone, so this takes minutes on a GPU. Go through the steps, look at the cost, then fit."""


class FitLayout:
    """All components of the tab, made inside an open ``gr.Tab``.

    Args:
        limits: named at the upload.
    """

    def __init__(self, limits: Limits) -> None:
        gr.Markdown(INTRO)
        with gr.Row():
            with gr.Column(min_width=320):
                self._put_steps(limits)
            with gr.Column(min_width=320):
                self._put_output()

    def _put_steps(self, limits: Limits) -> None:
        gr.Markdown("### 1. The clip")
        self.video = gr.Video(
            label=f"Your clip (at most {limits.megabytes:g} MB, {limits.seconds:g} s)",
            sources=["upload"],
            height=260,
            loop=True,
            buttons=[],
            elem_id="fit-video",
        )
        gr.Markdown("### 2. The mask\nPaint what may change, on the first frame; it is followed through the clip.")
        self.editor = mask_editor("fit-mask")
        gr.Markdown("### 3. The edited frame\nEdit the first frame with any tool, and give it back in its size.")
        self.original = gr.DownloadButton("Download the first frame", interactive=False, elem_id="fit-original")
        self.first = _image("The first frame after the edit", "fit-first")
        with gr.Accordion("A later frame, too", open=False, elem_id="fit-later-part"):
            gr.Markdown("For what the first frame does not show, such as the other side of a thing.")
            self.number = gr.Number(0, label="Its number", info="from 0", precision=0, elem_id="fit-number")
            self.later = _image("That frame after the edit", "fit-later")
        gr.Markdown("### 4. What it shows")
        self.prompt = gr.Textbox(
            "", label="After the edit", placeholder="a full description", max_length=500, elem_id="fit-prompt"
        )
        self.source_prompt = gr.Textbox(
            "", label="As it is", info="optional", max_length=500, elem_id="fit-source-prompt"
        )
        gr.Markdown("### 5. Fit and edit")
        self.steps = gr.Number(STEPS, label="Training steps", info="of each stage", precision=0, elem_id="fit-steps")
        with gr.Row():
            self.cost = gr.Button("What does it cost?", elem_id="fit-cost")
            self.run = gr.Button("Fit and edit", variant="primary", elem_id="fit-run")
            self.cancel = gr.Button("Cancel", variant="stop", interactive=False, elem_id="fit-cancel")

    def _put_output(self) -> None:
        self.status = gr.HTML(message("The result appears here."), elem_id="fit-status")
        with gr.Column(visible=False, elem_id="fit-result") as self.result:
            self.edited = gr.Video(
                label="The clip after the edit", interactive=False, loop=True, autoplay=True, buttons=[],
                elem_id="fit-edited",
            )  # fmt: skip
            self.download = gr.DownloadButton("Download the clip", variant="primary", elem_id="fit-download")
            self.adapter = gr.DownloadButton("Download the adapter", elem_id="fit-adapter")
            gr.Markdown(
                "With the adapter, `imvideoedit-edit clip.mp4 --adapter adapter.safetensors --first-frame other.png` "
                "edits this clip by another first frame, without a fit."
            )


def _image(label: str, elem_id: str) -> gr.Image:
    """An upload, kept as it is."""
    how: dict[str, Any] = {"type": "filepath", "image_mode": None, "sources": ["upload"], "height": 200, "buttons": []}
    return gr.Image(label=label, elem_id=elem_id, **how)
