"""What a method may bring in place of the backbone's text encoder: an encoder that also sees what is edited."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Reader(Protocol):
    """A frozen encoder that reads a text together with frames of the source and the inputs.

    What it makes of an edit is ``EditBatch.text_BTD``: encoded once for an edit, and cached for training.
    """

    @property
    def name(self) -> str:
        """Identifies its weights and all that decides its features, for a cache."""

    def places(self, count: int) -> list[int]:
        """Which frames of a source of ``count`` it sees."""

    def read(self, text: str, frames: Sequence[np.ndarray], count: int, inputs: Mapping[str, np.ndarray]) -> Tensor:
        """Features ``[T, D]`` on the CPU, with zeros after their end; T depends on the frames' number and size alone.

        Args:
            frames: of the source at :meth:`places`, uint8 ``[H, W, 3]``.
            count: frames of the source.
            inputs: images, uint8 ``[H, W, 3]``, by name.

        Raises:
            UserError: the text is longer than it reads, or it cannot be loaded.
        """

    def shape(self, count: int, height: int, width: int) -> tuple[int, int]:
        """About (T, D) for a source of so many frames and pixels, without loading it."""

    def weight_bytes(self, dtype: torch.dtype) -> int:
        """Bytes of its weights, without loading them."""

    def on(self, device: torch.device) -> contextlib.AbstractContextManager[None]:
        """Inside, it works on a device; afterwards its weights are on the CPU."""

    def release(self) -> None:
        """Let go of the weights, which are loaded again when needed."""
