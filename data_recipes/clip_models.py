"""What the clip recipe needs of models besides words: masks of an object, depth, and painted clips.

Shapes: F frames, H W pixels.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from data_recipes.diffusion import DTYPES
from data_recipes.stages import Component
from imvideoedit.common.errors import UserError


class Masker(Component):
    """Finds an object in a clip."""

    @abstractmethod
    def masks(self, video_FHWC: np.ndarray, words: str) -> np.ndarray | None:
        """Its mask in every frame, uint8 ``[F, H, W]`` of 0 and 255; None if it is not found."""


class Depth(Component):
    """Sees how far away things are."""

    @abstractmethod
    def depth(self, video_FHWC: np.ndarray) -> np.ndarray:
        """Nearness, uint8 ``[F, H, W]``: 255 for the nearest of the clip, 0 for the farthest."""


class ClipPainter(Component):
    """Paints a part of a clip, or all of it, by a text."""

    @abstractmethod
    def paint(self, control_FHWC: np.ndarray, region_FHW: np.ndarray, prompt: str, seed: int) -> np.ndarray:
        """The painted clip, uint8 of the control's shape.

        Args:
            control_FHWC: what is kept, grey where the region is; or a depth map where all is painted.
            region_FHW: 255 where the clip is painted.
        """


def where(device: str | None) -> str:
    """The device that is asked for; the GPU if there is one."""
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


@dataclass
class VacePainter(ClipPainter):
    """A VACE pipeline of diffusers.

    Raises:
        UserError: an unknown type of numbers.
    """

    pipeline: str  # folder or hub id
    revision: str | None = None
    call: Mapping[str, Any] = field(default_factory=dict)  # further arguments, as num_inference_steps
    dtype: str = "bfloat16"
    device: str | None = None
    offload: bool = False  # whether GPU memory holds only the active part

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UserError(f"painter.dtype is {self.dtype!r}; it must be one of {', '.join(DTYPES)}")
        self._loaded: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    @property
    def models(self) -> dict[str, str]:
        return {"edited clips": "@".join(filter(None, [self.pipeline, self.revision]))}

    def identity(self) -> Any:
        return [self.pipeline, self.revision, dict(self.call), self.dtype]

    def paint(self, control_FHWC: np.ndarray, region_FHW: np.ndarray, prompt: str, seed: int) -> np.ndarray:
        """As ``ClipPainter.paint``.

        Raises:
            UserError: the pipeline cannot be loaded, does not accept its arguments, or runs out of memory.
        """
        pipeline = self._pipeline()
        frames, height, width = region_FHW.shape
        generator = torch.Generator("cpu").manual_seed(seed)  # so that a seed gives the same noise on every device
        video = [Image.fromarray(frame) for frame in control_FHWC]
        mask = [Image.fromarray(frame) for frame in region_FHW]
        size = {"height": height, "width": width, "num_frames": frames}
        try:
            with torch.inference_mode():
                made = pipeline(
                    prompt=prompt, video=video, mask=mask, generator=generator, output_type="np", **size, **self.call
                ).frames[0]
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"{self.pipeline} runs out of memory for {frames} frames of {width}x{height}; lower sources.frames or "
                "sources.max_area, or set painter.offload=true"
            ) from error
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.pipeline} does not accept its arguments ({error}); check painter.call") from error
        return (np.asarray(made) * 255).round().clip(0, 255).astype(np.uint8)

    def _pipeline(self) -> Any:
        if self._loaded is None:
            from diffusers import WanVACEPipeline

            try:
                self._loaded = WanVACEPipeline.from_pretrained(
                    self.pipeline, revision=self.revision, torch_dtype=DTYPES[self.dtype], use_safetensors=True
                )
            except Exception as error:  # from the hub, the file system or a library
                raise UserError(
                    f"the pipeline {self.pipeline} cannot be loaded ({error}); check painter.pipeline and the network"
                ) from error
            self._loaded.set_progress_bar_config(disable=True)
            if self.offload:
                self._loaded.enable_model_cpu_offload(device=where(self.device))
            else:
                self._loaded.to(where(self.device))
        return self._loaded
