"""What fits into this machine, and where the parts of a backbone are while they work."""

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
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.methods.base import Method
from imvideoedit.wan.backbone import Backbone

LOG = logging.getLogger(__name__)
NOTCHES = ("full", "model", "group", "low")
WORDS = {
    "full": "all of the model on the device",
    "model": "text encoder, transformer and autoencoder take turns on the device",
    "group": "the transformer's blocks and the text encoder's layers come to the device one after the other",
    "low": "as group, and short windows",
}
LOW_FRAMES, LOW_OVERLAP = 17, 8  # of a window
SHARE = 0.85  # of the free memory that is planned with
WORK_WIDTHS, WORK_HIDDEN = 12, 2  # model widths and hidden widths that a token takes while a block works


@dataclass(frozen=True)
class Needs:
    """Bytes of an edit: weights of each part, the largest block, and the work on the longest window."""

    weights: dict[str, int]
    block: int
    work: int

    def of(self, notch: str) -> int:
        """What the device must hold at most."""
        if notch == "full":
            return sum(self.weights.values()) + self.work
        transformer = self.weights["transformer"] if notch == "model" else 2 * self.block
        others = [size for name, size in self.weights.items() if name == "vae" or notch == "model"]
        return max(transformer + self.work, *others)


class Placement:
    """Puts the parts of a backbone where they are needed, when an edit first asks for it.

    Args:
        method: installed in the backbone.
        device: where the work is done.
        asked: ``auto``, or one of :data:`NOTCHES`.
    """

    def __init__(self, backbone: Backbone, method: Method, device: torch.device, asked: str) -> None:
        self.device, self.asked = device, asked
        self.notch: str | None = None
        self._backbone, self._method = backbone, method
        self._turns: tuple[Any, ...] = ()

    def fit(self, chosen: SamplingConfig, tokens: int) -> SamplingConfig:
        """The settings on this machine; at the first call, the parts are put in their places.

        Args:
            tokens: of the longest window.

        Raises:
            UserError: ``asked`` is none of its choices.
        """
        if self.notch is None:
            self._put(choose_notch(self.asked, needs(self._backbone, self._method, tokens), self.device))
        if self.notch != NOTCHES[-1]:
            return chosen
        frames, overlap = min(chosen.max_frames, LOW_FRAMES), min(chosen.overlap, LOW_OVERLAP)
        return replace(chosen, max_frames=frames, overlap=overlap, cache=0.0)

    def lower(self) -> bool:
        """After memory ran out: take one notch less from now on. False where there is none."""
        notch = next_notch(self.notch or NOTCHES[0], self.device)
        if notch is not None:
            self._put(notch)
        return notch is not None

    @contextlib.contextmanager
    def working(self, part: nn.Module | None) -> Iterator[None]:
        """Inside, the part can be called."""
        if part is None or not any(part is each for each in self._turns):
            yield
            return
        part.to(self.device)
        try:
            yield
        finally:
            part.to("cpu")

    def _put(self, notch: str) -> None:
        backbone, before = self._backbone, self.notch
        self.notch, self._turns = notch, ()
        parts = [part for part in (backbone.transformer, backbone.text_encoder, backbone.vae) if part is not None]
        if notch != "full":
            LOG.warning("memory: %s; %s", notch, WORDS[notch])
        if before in NOTCHES[2:]:  # they come block by block already
            self._turns = (backbone.vae,)
            return
        for part in parts:
            part.to(self.device if notch == "full" else "cpu")
        if notch == "model":
            self._turns = tuple(parts)
        elif notch != "full":
            self._turns = (backbone.vae,)
            self._come_in_groups()

    def _come_in_groups(self) -> None:
        stream = self.device.type == "cuda"
        for name, part in self._method.named_children():
            if name != "blocks":  # those are in the transformer
                part.to(self.device)
        apply_group_offloading(
            self._backbone.transformer,
            self.device,
            offload_type="block_level",
            num_blocks_per_group=1,
            use_stream=stream,
        )
        if self._backbone.text_encoder is not None:
            apply_group_offloading(
                self._backbone.text_encoder, self.device, offload_type="leaf_level", use_stream=stream
            )


def needs(backbone: Backbone, method: Method, tokens: int) -> Needs:
    """What an edit needs.

    Args:
        tokens: of the longest window.
    """
    transformer: Any = backbone.transformer
    config = transformer.config
    width = config.num_attention_heads * config.attention_head_dim
    item = transformer.patch_embedding.weight.element_size()
    parts = {"transformer": transformer, "vae": backbone.vae, "text_encoder": backbone.text_encoder}
    weights = {name: _weights(part) for name, part in parts.items() if part is not None}
    kept = sum(1 + getattr(processor, "reads_a_3d", False) for processor in method.blocks)
    work = tokens * (kept * width * item + (WORK_WIDTHS * width + WORK_HIDDEN * config.ffn_dim) * max(item, 4))
    return Needs(weights, max(_weights(block) for block in transformer.blocks), work)


def choose_notch(asked: str, needed: Needs, device: torch.device) -> str:
    """The first notch that fits into what is free; the last one if none does.

    Args:
        asked: ``auto``, or the notch itself.

    Raises:
        UserError: there is no such notch.
    """
    if asked != "auto":
        if asked not in NOTCHES:
            raise UserError(f"memory is {asked!r}; choose auto, {', '.join(NOTCHES)}")
        return asked
    room = SHARE * free_bytes(device)
    if device.type == "cpu":  # nothing to take turns on
        return "full" if needed.work <= room else "low"
    return next((notch for notch in NOTCHES if needed.of(notch) <= room), NOTCHES[-1])


def next_notch(notch: str, device: torch.device) -> str | None:
    """The next notch that needs less; None below the last."""
    if notch == NOTCHES[-1]:
        return None
    return NOTCHES[-1] if device.type == "cpu" else NOTCHES[NOTCHES.index(notch) + 1]


def free_bytes(device: torch.device) -> int:
    """Memory of a device that nobody uses."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _weights(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.state_dict().values())
