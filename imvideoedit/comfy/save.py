"""The node that saves an edited video."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from imvideoedit.comfy import host
from imvideoedit.comfy.media import outside_inference, to_video
from imvideoedit.common.errors import UserError
from imvideoedit.editing.outputs import frame_writer
from imvideoedit.video.reader import Clip, VideoWriter

FORMATS = {
    "mp4, h264": (".mp4", "h264"),
    "mp4, h265": (".mp4", "h265"),
    "webm, av1": (".webm", "av1"),
    "mkv, lossless": (".mkv", "lossless"),
    "png": ("", "png"),
}
"""Suffix and codec, by what the node shows."""


class SaveEdit:
    """Writes frames into ComfyUI's output folder; the file appears complete or not at all."""

    CATEGORY: ClassVar[str] = "imvideoedit"
    DESCRIPTION: ClassVar[str] = "Saves an edited video with the times, sound and colours of its source."
    FUNCTION: ClassVar[str] = "save"
    OUTPUT_NODE: ClassVar[bool] = True
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:
        prefix = "Of the file's name; may name folders, and %width%, %year% and the like."
        source = "The video that was edited: times of frames, sound, chapters and colours are kept from it."
        return {
            "required": {
                "video": ("IMAGE", {"tooltip": "The frames to save."}),
                "filename_prefix": ("STRING", {"default": "imvideoedit/edit", "tooltip": prefix}),
                "format": (
                    list(FORMATS),
                    {"default": next(iter(FORMATS)), "tooltip": "lossless and png keep every pixel."},
                ),
                "fps": (
                    "FLOAT",
                    {
                        "default": 24.0,
                        "min": 0.01,
                        "max": 1000.0,
                        "step": 0.01,
                        "tooltip": "Frames a second, without a source.",
                    },
                ),
            },
            "optional": {"source": ("VIDEO", {"tooltip": source})},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    @outside_inference
    def save(
        self,
        video: Tensor,
        filename_prefix: str,
        format: str,
        fps: float,
        source: Any = None,
        prompt: Any = None,
        extra_pnginfo: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Write the frames, and tell ComfyUI what to show.

        Raises:
            UserError: the source has another number of frames, or the disk refuses the file.
        """
        frames = to_video(video, "video")
        suffix, codec = FORMATS[format]
        stem, below = host.output_path(filename_prefix, frames.shape[2], frames.shape[1])
        path = stem.with_name(stem.name + suffix)
        with _writer(path, codec, fps, source, len(frames), _texts(prompt, extra_pnginfo)) as write:
            for frame_HWC in frames:
                host.check_cancelled()
                write(frame_HWC)
        return {"ui": _shown(path, below)}


@contextmanager
def _writer(path: Path, codec: str, fps: float, source: Any, count: int, texts: dict[str, str]) -> Iterator[Any]:
    """A function that writes the next frame."""
    if source is None:
        with VideoWriter(path, fps=fps, metadata=texts, codec=codec) as writer:
            yield writer.add
        return
    with _file(source) as name:
        clip = Clip(name)
        if len(clip) != count:
            raise UserError(
                f"the source has {len(clip)} frames, but there are {count} to save; "
                "connect the video that was edited, or none and set fps"
            )
        with frame_writer(path, clip, codec, texts) as write:
            yield write


@contextmanager
def _file(source: Any) -> Iterator[Path]:
    """The file of a VIDEO, which may be in memory only."""
    found = source.get_stream_source()
    if isinstance(found, str):
        yield Path(found)
        return
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(found.getbuffer())
        file.flush()
        yield Path(file.name)


def _texts(prompt: Any, extra: dict[str, Any] | None) -> dict[str, str]:
    """The workflow, under the names that ComfyUI opens it by."""
    if not host.keeps_workflows():
        return {}
    texts = {} if prompt is None else {"prompt": prompt}
    return {name: json.dumps(value) for name, value in (texts | (extra or {})).items()}


def _shown(path: Path, below: str) -> dict[str, Any]:
    if path.is_dir():
        folder = f"{below}/{path.name}" if below else path.name
        files = [(each.name, folder) for each in sorted(path.iterdir())]
    else:
        files = [(path.name, below)]
    images = [{"filename": name, "subfolder": folder, "type": "output"} for name, folder in files]
    return {"images": images} if path.is_dir() else {"images": images, "animated": (True,)}
