"""A request looked at before anything is made: its files, its backbone's shapes, and what it costs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from imvideoedit.editing.memory import SHARE, free_bytes
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.fitting.cost import Cost, Memory, Shape, cost_of
from imvideoedit.fitting.masks import read_masks
from imvideoedit.fitting.request import FIRST, FitRequest
from imvideoedit.fitting.texts import check_texts
from imvideoedit.methods.lora_edit import LoraEdit
from imvideoedit.methods.lora_edit_samples import chunks_of
from imvideoedit.video.geometry import fit_size
from imvideoedit.video.reader import Clip
from imvideoedit.wan.bases import autoencoder_config, meta_transformer, transformer_config

NANO_TEXT, TEXT = 64, 512  # tokens of a prompt
PREFIX = "p3rs0n, "  # begins every prompt of a fit, as in the release; the nano world's tokenizer has no such word
OF_NANO = SamplingConfig(max_area=4096, max_frames=49, steps=8, guidance=1.0)
RATE, NANO_RATE = 1e-4, 1e-3  # of the paper, and what the nano world needs in as many steps
OF_WAN = SamplingConfig(steps=30, guidance=5.0, shift=5.0)


@dataclass(frozen=True)
class Plan:
    """What a fit does, all of whose inputs were seen to be good.

    Attributes:
        clip: the part of it that is fitted.
        edited: frames by their numbers, uint8 ``[H, W, 3]``.
        config: of the transformer.
        sampling: of the edit.
        size: height and width at the model's size.
        rate: the learning rate.
        prefix: of all prompts.
        checkpointing: whether blocks are recomputed in the backward pass; of the nano world, nothing need be.
        pixels, group: of a latent pixel's side, and frames of a latent frame after the first.
    """

    request: FitRequest
    clip: Clip
    edited: Mapping[int, np.ndarray]
    config: Mapping[str, Any]
    sampling: SamplingConfig
    size: tuple[int, int]
    rate: float
    prefix: str
    checkpointing: bool
    pixels: int
    group: int

    @classmethod
    def of(cls, request: FitRequest, **settings: Any) -> "Plan":
        """Look at a request.

        Args:
            settings: values of :class:`SamplingConfig` that override the backbone's own; None for its own.

        Raises:
            UserError: a file of it is missing or does not fit, or the backbone is none for this method.
        """
        check_texts(request)
        clip = request.open_clip()
        edited = request.read_edited(clip)
        read_masks(request.mask, clip)
        config, autoencoder = transformer_config(request.backbone), autoencoder_config(request.backbone)
        nano = autoencoder["_class_name"] == "NanoAutoencoder"
        pixels, group = autoencoder["scale_factor_spatial"], autoencoder["scale_factor_temporal"]
        length = -(-(len(clip) - 1) // group) * group + 1
        sampling = (OF_NANO if nano else OF_WAN).override(**settings)
        sampling = sampling.override(max_frames=max(sampling.max_frames, length))
        multiple = pixels * max(config["patch_size"][1:])
        size = fit_size(clip.info.height, clip.info.width, sampling.max_area, multiple)
        prefix = "" if nano else PREFIX
        recomputed = request.offload == "on" or (request.checkpointing and not nano)
        rate = request.rate or (NANO_RATE if nano else RATE)
        plan = cls(request, clip, edited, config, sampling, size, rate, prefix, recomputed, pixels, group)
        plan.method().install(meta_transformer({k: v for k, v in config.items() if not k.startswith("_")}))
        return plan

    def method(self) -> LoraEdit:
        """A fresh one."""
        return LoraEdit(rank=self.request.rank, target=self.request.target)

    @cached_property
    def parts(self) -> list[slice]:
        """The frames of each sample of the first stage."""
        return [slice(0, len(self.clip))] if self.request.mode == "full" else chunks_of(len(self.clip))

    @property
    def later(self) -> dict[int, np.ndarray]:
        """The edited frames that the second stage learns: those after the first one, which the edit itself is given."""
        return {number: image for number, image in self.edited.items() if number != FIRST}

    @cached_property
    def memory(self) -> Memory:
        """That of a training step."""
        shape = self._shape()
        pairs = shape.pairs(max(shape.frames))
        return Memory.of(self.config, self.method(), pairs, self.request.eight_bit, self.checkpointing)

    def offload(self, device: torch.device) -> bool:
        """Whether blocks are on the device one by one while they train."""
        if self.request.offload != "auto":
            return self.request.offload == "on"
        if device.type != "cuda" or not self.checkpointing:
            return False
        return sum(self.memory.whole.values()) > SHARE * free_bytes(device)

    def cost(self, device: torch.device) -> Cost:
        """Its cost on a device."""
        steps, how = self.request.steps, self.checkpointing
        return cost_of(self.config, self.method(), self._shape(), steps, self.sampling, how, device)

    def _shape(self) -> Shape:
        lengths = [self._latents(part.stop - part.start) for part in self.parts]
        height, width = (side // self.pixels for side in self.size)
        text = TEXT if self.prefix else NANO_TEXT
        return Shape(height, width, tuple(lengths), len(self.later), self._latents(len(self.clip)), text)

    def _latents(self, frames: int) -> int:
        """Latent frames of so many frames."""
        return -(-(frames - 1) // self.group) + 1

    def lines(self, device: torch.device) -> Iterator[str]:
        """What is to be done, and its cost, for people."""
        info, (height, width) = self.clip.info, self.size
        size = f"{info.width}x{info.height}, at the model's size {width}x{height}"
        parts = f" in {len(self.parts)} parts" if len(self.parts) > 1 else ""
        stages = "two stages" if self.later else "one stage, as no frame after the first is edited,"
        yield f"{self.request.clip}: {len(self.clip)} frames{parts}, {size}; {stages} of {self.request.steps} steps"
        yield self.cost(device).line()
        yield from self.memory.lines()
        if self.offload(device):
            yield "the blocks are on the device one by one while they train"
