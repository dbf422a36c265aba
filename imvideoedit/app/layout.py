"""The page's components; their events are in ``page``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from imvideoedit.app.inputs import InputControls
from imvideoedit.app.queue import Limits
from imvideoedit.app.samples import SAMPLES
from imvideoedit.app.texts import INTRO, NANO_WARNING, message
from imvideoedit.edit_batch import Input
from imvideoedit.editing.sampling_config import QUALITIES, SamplingConfig
from imvideoedit.video.display import enlarged
from imvideoedit.video.reader import Clip

SETTINGS = {
    "steps": "of the solver",
    "guidance": "by the text, at least 1",
    "source_guidance": "above 1 follows the source more",
    "strength": "below 1 keeps the source's layout; up to 1",
    "keep": "composite the source's pixels below this difference",
    "mask_feather": "pixels over which the edit fades out around the mask",
}
"""Settings that the quality presets, with their hints."""
GALLERY: dict[str, Any] = {
    "columns": 4,
    "fit_columns": False,
    "height": "auto",
    "allow_preview": False,
    "interactive": False,
    "buttons": [],
}


class Layout:
    """All components of the page, made inside an open ``gr.Blocks``.

    Args:
        limits: named at the upload.
        config: the adapter's own, the first values of the settings.
        nano: whether the model edits scenes of the nano world only.
        samples: files of the sample clips.
        declared: what the adapter takes besides video and text.
    """

    def __init__(
        self, limits: Limits, config: SamplingConfig, nano: bool, samples: list[Path], declared: Sequence[Input]
    ) -> None:
        self.browser = gr.BrowserState(None, storage_key="imvideoedit")
        self.shown = gr.State(None)
        gr.Markdown(INTRO + (NANO_WARNING if nano else ""))
        with gr.Row():
            with gr.Column(min_width=320):
                self._put_input(limits, samples, declared)
                with gr.Accordion("Settings", open=False, elem_id="settings"):
                    self._put_settings(config)
            with gr.Column(min_width=320):
                self._put_output()

    def _put_input(self, limits: Limits, samples: list[Path], declared: Sequence[Input]) -> None:
        self.video = gr.Video(
            label=f"Your video (at most {limits.megabytes:g} MB, {limits.seconds:g} s)",
            sources=["upload"],
            height=260,
            loop=True,
            buttons=[],
            elem_id="video",
        )
        images = [(enlarged(next(iter(Clip(path)))), s.name) for path, s in zip(samples, SAMPLES, strict=True)]
        self.gallery = gr.Gallery(images, label="… or a sample", elem_id="samples", **GALLERY)
        self.instruction = gr.Textbox(
            "", label="What to change", placeholder="make the red box blue", max_length=500, elem_id="instruction"
        )
        self.examples = gr.Dataset(
            components=[self.instruction],
            samples=[[text] for sample in SAMPLES for text in sample.instructions[:1]],
            label="For example",
            elem_id="examples",
        )
        self.inputs = InputControls(declared)
        with gr.Row():
            self.run = gr.Button("Edit", variant="primary", elem_id="run")
            self.cancel = gr.Button("Cancel", variant="stop", interactive=False, elem_id="cancel")

    def _put_settings(self, config: SamplingConfig) -> None:
        self.quality = gr.Radio(
            list(QUALITIES),
            value="best",
            label="Quality",
            info="draft and standard take fewer steps; it presets the settings below",
            elem_id="quality",
        )
        with gr.Row():
            self.settings = [
                gr.Number(
                    getattr(config, name),
                    label=name.replace("_", " ").capitalize(),
                    info=hint,
                    precision=0 if name == "steps" else None,
                    min_width=140,
                    elem_id=name.replace("_", "-"),
                )
                for name, hint in SETTINGS.items()
            ]
            self.seed = gr.Number(0, label="Seed", info="of the noise", precision=0, min_width=140, elem_id="seed")
            self.start = gr.Number(0, label="Start", info="seconds", min_width=140, elem_id="start")
            self.end = gr.Number(0, label="End", info="seconds; 0 is the video's end", min_width=140, elem_id="end")
        # A text, not nothing, which is what the page sends until the settings have been opened or the upload was taken.
        self.source_prompt = gr.Textbox(
            "", label="What the video shows now", info="optional; helps to make the prompt", elem_id="source-prompt"
        )

    def _put_output(self) -> None:
        self.status = gr.HTML(message("The result appears here."), elem_id="status")
        self.preview = gr.Image(
            label="Preview of the middle frame",
            visible=False,
            height=320,
            interactive=False,
            buttons=[],
            elem_id="preview",
        )
        with gr.Column(visible=False, elem_id="result") as self.result:
            with gr.Tab("Frame"):
                self.slider = gr.ImageSlider(
                    label="Source | result", interactive=False, max_height=420, buttons=["fullscreen"], elem_id="slider"
                )
                self.frame = gr.Slider(0, 1, 0, step=1, label="Frame", elem_id="frame")
            with gr.Tab("Video"):
                self.both = gr.Video(
                    label="Source and result", interactive=False, loop=True, autoplay=True, buttons=[], elem_id="both"
                )
            self.download = gr.DownloadButton("Download the result", variant="primary", elem_id="download")
            self.prompt = gr.Textbox(
                label="Prompt that was used", info="change it and run it again", lines=3, elem_id="prompt"
            )
            self.again = gr.Button("Run again with this prompt", elem_id="again")
        self.history = gr.Gallery(
            label="Your results; click one to see it again", visible=False, elem_id="history", **GALLERY
        )
