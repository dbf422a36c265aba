"""Offloading: which parts of a backbone are on the device, and when, by what fits into memory."""

import contextlib
import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from diffusers.hooks import apply_group_offloading
from torch import Tensor, nn

from imvideoedit.editing.denoiser import windows_of
from imvideoedit.editing.memory import GIB, SHARE, Needs, free_bytes, held_bytes, needs
from imvideoedit.editing.model_options import OFFLOAD_LEVELS, stated_bytes
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.methods.base import Method
from imvideoedit.methods.keep_plan import KeepPlan, Place, plan_keeping
from imvideoedit.wan.backbone import Backbone
from imvideoedit.wan.quantized import goes_in_blocks
from imvideoedit.wan.token_split import processes_of

LOG = logging.getLogger(__name__)
DESCRIPTIONS = {
    "full": "all of the model on the device",
    "model": "text encoder, transformer and autoencoder on the device in turn",
    "group": "the transformer's blocks and the text encoder's layers on the device one by one, frames in tiles",
    "low": "as group, with short windows",
}
LOW_FRAMES, LOW_OVERLAP = 17, 8  # of a window
HOST_SHARE = 0.5  # of the CPU's free memory that may hold features of the source


class Placement:
    """Places the parts of a backbone by an offload level, which is chosen at the first edit.

    Args:
        method: installed in the backbone.
        device: of the computation.
        requested: ``auto``; one of :data:`OFFLOAD_LEVELS`; or an amount such as ``20GiB``, within which ``auto`` then
            stays.

    Raises:
        UserError: it is none of these.
    """

    def __init__(self, backbone: Backbone, method: Method, device: torch.device, requested: str) -> None:
        self.device, self.requested = device, requested
        self.level: str | None = None
        self._backbone, self._method = backbone, method
        self._swapped: tuple[Any, ...] = ()
        self._stated = stated_bytes(requested)
        self._said = ""

    def fit(self, config: SamplingConfig, tokens: int, pixels: int) -> SamplingConfig:
        """The config for this machine; the first call places the parts.

        Args:
            tokens: of the longest window.
            pixels: of a frame.
        """
        if self.level is None:
            needed = needs(self._backbone, self._method, tokens, pixels)
            self._place(choose_level(self.requested, needed, self.device, self._room(), self._host_room()))
        if self.level != OFFLOAD_LEVELS[-1]:
            return config
        frames, overlap = min(config.max_frames, LOW_FRAMES), min(config.overlap, LOW_OVERLAP)
        return replace(config, max_frames=frames, overlap=overlap, cache=0.0)

    def plan(self, source_BCFHW: Tensor, config: SamplingConfig) -> KeepPlan | None:
        """Where an edit keeps what it knows of the source in each window; None where that does not fit. Says so.

        Args:
            source_BCFHW: latents of the whole video.
            config: of :meth:`fit`.
        """
        backbone = self._backbone
        windows = windows_of(source_BCFHW.shape[2], config, backbone.vae_temporal)
        frames, (height, width) = windows[0].stop - windows[0].start, source_BCFHW.shape[3:]
        frames = -(-frames // processes_of(backbone.transformer))
        tokens = frames * height * width // math.prod(backbone.transformer.config.patch_size)
        needed = needs(backbone, self._method, tokens, height * width * backbone.vae_spatial**2)
        level, room = self.level or OFFLOAD_LEVELS[0], self._room()
        left = room - needed.held(level) - needed.work
        plan = plan_keeping(needed.features, left, self._host_room(), len(windows))
        if plan is None and len(windows) == 1:  # to make them anew at each step would need no less
            places: list[Place] = ["recorded" for _ in needed.features]
            plan = KeepPlan(tuple(places))
        self._say(level, room, needed, plan, len(windows))
        return plan

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

    def _room(self) -> float:
        """Bytes of the device that may be planned for, the weights that are there included."""
        if self._stated is not None:
            return self._stated
        modules = [self._backbone.transformer, self._backbone.vae, self._backbone.text_encoder, *self._method.apart()]
        there = sum(held_bytes(each, self.device.type) for each in modules if each is not None)
        return SHARE * (free_bytes(self.device) + there)

    def _host_room(self) -> float:
        """Bytes of the CPU's memory for features of the source; none where it is the device's own."""
        return 0.0 if self.device.type == "cpu" else HOST_SHARE * free_bytes(torch.device("cpu"))

    def _say(self, level: str, room: float, needed: Needs, plan: KeepPlan | None, windows: int) -> None:
        """What was planned, in one line, unless all of it fits or it was said before."""
        blocks = len(needed.features)
        kept = "the source encoded anew at each step" if plan is None else plan.describe(blocks)
        if level == "full" and plan is not None and plan.everything:
            return
        held = 0 if plan is None else windows * plan.device_bytes(needed.features)
        line = f"memory: {level}; {DESCRIPTIONS[level]}; {needed.describe(level, held)} of {room / GIB:.1f}"
        line += f"; {kept}" if blocks else ""
        if line != self._said:
            LOG.warning("%s", line)
        self._said = line

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


def choose_level(requested: str, needed: Needs, device: torch.device, room: float, host_room: float = 0.0) -> str:
    """The first level that fits; the last one if none does.

    Args:
        requested: a level is taken as it is.
        room: bytes that may be planned for.
        host_room: bytes of the CPU's memory for features of the source, before windows are made shorter.
    """
    if requested in OFFLOAD_LEVELS:
        return requested
    if device.type == "cpu":  # nothing to offload to
        return "full" if needed.of("full") <= room else "low"
    kept = sum(size.recorded for size in needed.features)
    for level in OFFLOAD_LEVELS[:-1]:
        if needed.of(level) <= room:
            return level
    return "group" if kept <= host_room and needed.of("group", 0) <= room else OFFLOAD_LEVELS[-1]


def next_level(level: str, device: torch.device) -> str | None:
    """The next level that needs less memory; None after the last."""
    if level == OFFLOAD_LEVELS[-1]:
        return None
    return OFFLOAD_LEVELS[-1] if device.type == "cpu" else OFFLOAD_LEVELS[OFFLOAD_LEVELS.index(level) + 1]
