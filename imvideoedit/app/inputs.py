"""The page's controls for what the loaded adapter takes besides video and text, and for a mask, which any takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import Input
from imvideoedit.editing.inputs import known_inputs
from imvideoedit.editing.job_inputs import MASK
from imvideoedit.video.display import thumbnail
from imvideoedit.video.masks import nearest
from imvideoedit.video.pngs import write_picture

EDITOR_SIDE = 480  # most pixels of the longer side of the frame that is painted on
BRUSH = ("#ff2d55", 0.7)  # colour and opacity


class InputControls:
    """A brush for the mask, and an upload or a text box for each input that is declared; made in open ``gr.Blocks``.

    Attributes:
        editor: of the mask, on the first frame.
        parts: all controls, in the order of the values of :meth:`collect`.
    """

    def __init__(self, declared: Sequence[Input]) -> None:
        known = known_inputs(declared)
        mask = known.pop(MASK)
        self._names = [*known, MASK]
        self.parts: list[Any] = [_control(each) for each in known.values()]
        with gr.Accordion(f"Mask{'' if mask.required else ' (optional)'}", open=mask.required, elem_id="mask-part"):
            gr.Markdown("Paint what may change, on the first frame and for all of them; the rest stays as it is.")
            self.editor = mask_editor("mask")
        self.parts.append(self.editor)

    @staticmethod
    def canvas(frame_HWC: np.ndarray | None) -> dict[str, Any] | None:
        """The editor's value to paint on a first frame, uint8 ``[H, W, 3]``; empty if None."""
        if frame_HWC is None:
            return None
        shown = thumbnail(frame_HWC, EDITOR_SIDE)
        return {"background": shown, "layers": [], "composite": shown}

    def collect(self, values: Sequence[Any], size: tuple[int, int], folder: Path) -> dict[str, Path | str]:
        """The inputs of a job; what is left empty is none.

        Args:
            values: of ``parts``.
            size: height and width of the video.
            folder: where the mask is written.

        Raises:
            UserError: the mask did not arrive.
        """
        given: dict[str, Path | str] = {}
        for name, value in zip(self._names, values, strict=True):
            if name == MASK:
                painted = painted_mask(value, size)
                if painted is not None:
                    given[name] = folder / "mask.png"
                    write_picture(Image.fromarray(painted), folder / "mask.png", "PNG")
            elif isinstance(value, str) and value.strip():
                given[name] = (
                    value.strip() if isinstance(self.parts[self._names.index(name)], gr.Textbox) else Path(value)
                )
        return given


def mask_editor(elem_id: str) -> gr.ImageEditor:
    """A brush on a frame, in open ``gr.Blocks``."""
    return gr.ImageEditor(
        show_label=False,
        image_mode="RGBA",
        sources=[],
        transforms=[],
        layers=False,
        format="png",
        brush=gr.Brush(default_size=24, colors=[BRUSH], default_color=BRUSH, color_mode="fixed"),
        eraser=gr.Eraser(default_size=24),
        canvas_size=(EDITOR_SIDE, EDITOR_SIDE),
        buttons=[],
        elem_id=elem_id,
    )


def _control(declared: Input) -> Any:
    """The control of an input other than ``mask``."""
    words = declared.name.replace("_", " ").capitalize() + ("" if declared.required else " (optional)")
    how: dict[str, Any] = {"label": words, "elem_id": f"input-{declared.name.replace('_', '-')}"}
    if declared.kind == "text":
        return gr.Textbox(max_length=500, **how)
    if declared.kind == "image":  # as it was uploaded, not converted
        return gr.Image(type="filepath", image_mode=None, sources=["upload"], height=200, buttons=[], **how)
    return gr.File(type="filepath", file_types=["video", "image"], height=120, **how)


def painted_mask(value: dict[str, Any] | None, size: tuple[int, int]) -> np.ndarray | None:
    """A mask, uint8 ``[H, W]``, of how opaque the paint is; None where there is none.

    Args:
        value: of :func:`mask_editor`.
        size: height and width of the video.

    Raises:
        UserError: it did not arrive.
    """
    if value is None:
        return None
    if value["background"] is None:
        raise UserError("the painted mask did not arrive; paint it again")
    opacities = [layer_HWC[..., 3] for layer_HWC in value["layers"]]
    if not any(opacity_HW.any() for opacity_HW in opacities):
        return None
    return nearest(np.max(opacities, axis=0), size)
