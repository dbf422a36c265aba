"""Offloading: which parts of a backbone are on the device, and when, by what fits into memory."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch
from diffusers.hooks import apply_group_offloading
from torch import nn

from imvideoedit.common.errors import UserError
from imvideoedit.editing.model_options import OFFLOAD_LEVELS
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.layers.quantized import stored_bytes
from imvideoedit.methods.base import Method
from imvideoedit.wan.backbone import Backbone
from imvideoedit.wan.quantized import goes_in_blocks

LOG = logging.getLogger(__name__)
DESCRIPTIONS = {
    "full": "all of the model on the device",
    "model": "text encoder, transformer and autoencoder on the device in turn",
    "group": "the transformer's blocks and the text encoder's layers on the device one by one, frames in tiles",
    "low": "as group, with short windows",
}
LOW_FRAMES, LOW_OVERLAP = 17, 8  # of a window
SHARE = 0.85  # of the free memory that may be planned for
WORK_WIDTHS, WORK_HIDDEN = 12, 2  # activations of a token inside a block, in model widths and feed-forward widths


@dataclass(frozen=True)
class Needs:
    """Bytes of an edit: weights of each part, the largest block, and activations of the longest window."""

    weights: dict[str, int]
    block: int
    work: int

    def of(self, level: str) -> int:
        """Peak bytes on the device."""
        if level == "full":
            return sum(self.weights.values()) + self.work
        transformer = self.weights["transformer"] if level == "model" else 2 * self.block
        others = [size for name, size in self.weights.items() if name == "vae" or level == "model"]
        return max(transformer + self.work, *others)


class Placement:
    """Places the parts of a backbone by an offload level, which is chosen at the first edit.

    Args:
        method: installed in the backbone.
        device: of the computation.
        requested: ``auto``, or one of :data:`OFFLOAD_LEVELS`.
    """

    def __init__(self, backbone: Backbone, method: Method, device: torch.device, requested: str) -> None:
        self.device, self.requested = device, requested
        self.level: str | None = None
        self._backbone, self._method = backbone, method
        self._swapped: tuple[Any, ...] = ()

    def fit(self, config: SamplingConfig, tokens: int) -> SamplingConfig:
        """The config for this machine; the first call places the parts.

        Args:
            tokens: of the longest window.

        Raises:
            UserError: there is no such level.
        """
        if self.level is None:
            self._place(choose_level(self.requested, needs(self._backbone, self._method, tokens), self.device))
        if self.level != OFFLOAD_LEVELS[-1]:
            return config
        frames, overlap = min(config.max_frames, LOW_FRAMES), min(config.overlap, LOW_OVERLAP)
        return replace(config, max_frames=frames, overlap=overlap, cache=0.0)

    def lower(self) -> bool:
        """After memory ran out: go to the next lower level for good. False where there is none."""
        level = next_level(self.level or OFFLOAD_LEVELS[0], self.device)
        if level is not None:
            self._place(level)
        return level is not None

    @contextlib.contextmanager
    def working(self, part: nn.Module | None) -> Iterator[None]:
        """Inside, the part can be called."""
        if part is None or not any(part is each for each in self._swapped):
            yield
            return
        part.to(self.device)
        try:
            yield
        finally:
            part.to("cpu")

    def _place(self, level: str) -> None:
        backbone, before = self._backbone, self.level
        self.level, self._swapped = level, ()
        if backbone.vae is not None:
            backbone.vae.use_tiling = level in OFFLOAD_LEVELS[2:]
        parts = [part for part in (backbone.transformer, backbone.text_encoder, backbone.vae) if part is not None]
        if level != "full":
            LOG.warning("memory: %s; %s", level, DESCRIPTIONS[level])
        for part in self._method.apart():  # small, and called in the middle of the transformer's pass
            part.to(self.device)
        if before in OFFLOAD_LEVELS[2:]:  # their hooks move block by block already
            self._swapped = (backbone.vae,)
            return
        for part in parts:
            part.to(self.device if level == "full" else "cpu")
        if level == "model":
            self._swapped = tuple(parts)
        elif level != "full":
            self._swapped = (backbone.vae,)
            self._offload_in_groups()

    def _offload_in_groups(self) -> None:
        stream, transformer = self.device.type == "cuda", self._backbone.transformer
        if goes_in_blocks(transformer):
            apply_group_offloading(
                transformer, self.device, offload_type="block_level", num_blocks_per_group=1, use_stream=stream
            )
        else:
            self._swapped += (transformer,)
        if self._backbone.text_encoder is not None:
            apply_group_offloading(
                self._backbone.text_encoder, self.device, offload_type="leaf_level", use_stream=stream
            )


def needs(backbone: Backbone, method: Method, tokens: int) -> Needs:
    """Bytes that an edit needs.

    Args:
        tokens: of the longest window.
    """
    transformer: Any = backbone.transformer
    config = transformer.config
    width = config.num_attention_heads * config.attention_head_dim
    item = transformer.patch_embedding.weight.element_size()
    parts = {"transformer": transformer, "vae": backbone.vae, "text_encoder": backbone.text_encoder}
    weights = {name: _weights(part) for name, part in parts.items() if part is not None}
    work = tokens * (WORK_WIDTHS * width + WORK_HIDDEN * config.ffn_dim) * max(item, 4)
    work += method.working_bytes(tokens)
    block = max(_weights(block) for block in transformer.blocks)
    return Needs(weights, block if goes_in_blocks(transformer) else weights["transformer"] // 2, work)


def choose_level(requested: str, needed: Needs, device: torch.device) -> str:
    """The first level that fits into free memory; the last one if none does.

    Args:
        requested: ``auto``, or a level.

    Raises:
        UserError: there is no such level.
    """
    if requested != "auto":
        if requested not in OFFLOAD_LEVELS:
            raise UserError(f"memory is {requested!r}; choose auto, {', '.join(OFFLOAD_LEVELS)}")
        return requested
    room = SHARE * free_bytes(device)
    if device.type == "cpu":  # nothing to offload to
        return "full" if needed.work <= room else "low"
    return next((level for level in OFFLOAD_LEVELS if needed.of(level) <= room), OFFLOAD_LEVELS[-1])


def next_level(level: str, device: torch.device) -> str | None:
    """The next level that needs less memory; None after the last."""
    if level == OFFLOAD_LEVELS[-1]:
        return None
    return OFFLOAD_LEVELS[-1] if device.type == "cpu" else OFFLOAD_LEVELS[OFFLOAD_LEVELS.index(level) + 1]


def free_bytes(device: torch.device) -> int:
    """Free memory of a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _weights(module: nn.Module) -> int:
    return sum(stored_bytes(tensor) for tensor in module.state_dict().values())
