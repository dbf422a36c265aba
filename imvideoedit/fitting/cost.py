"""What a fit costs, before it starts and from shapes alone: FLOPs and time of its stages and its edit, and memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from imvideoedit.common.machine import matmul_rate
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.methods.base import Method
from imvideoedit.methods.lora_edit_samples import REPEATS
from imvideoedit.training.estimate import GIB, Setting, estimate
from imvideoedit.training.flops import Pairs, taken_by, useful_flops

FORWARD = 0.5  # of a training step's FLOPs: the frozen weights have no gradients, and the deltas are small


@dataclass(frozen=True)
class Shape:
    """A clip at the model's size.

    Attributes:
        height, width: of its latents.
        frames: of latents, of each sample of the first stage in turn.
        edited: frames of the second stage, besides the samples of the first; 0 for no such stage.
        whole: latent frames of the clip.
        text: tokens of a prompt.
    """

    height: int
    width: int
    frames: tuple[int, ...]
    edited: int
    whole: int
    text: int

    def pairs(self, frames: int) -> Pairs:
        """A sample of so many latent frames."""
        return Pairs(1, self.height, self.width, self.text, frames)


@dataclass(frozen=True)
class Cost:
    """What a fit costs.

    Attributes:
        flops: by stage.
        rate: FLOP/s of this device's matrix multiplications, measured now.
        memory: bytes by part, of a training step with the largest sample.
    """

    flops: dict[str, float]
    rate: float
    memory: dict[str, float]

    def lines(self) -> Iterator[str]:
        """For people."""
        parts = ", ".join(f"{name} {flops / 1e12:.3g} TFLOP" for name, flops in self.flops.items() if flops)
        least = sum(self.flops.values()) / self.rate
        yield f"cost: {parts}; at {self.rate / 1e9:.0f} GFLOP/s, as measured here, at least {_time(least)}"
        details = ", ".join(f"{name} {size / GIB:.2f}" for name, size in self.memory.items())
        yield f"memory of a training step on a GPU by estimate: {sum(self.memory.values()) / GIB:.2f} GiB ({details})"


def cost_of(
    config: Mapping[str, Any],
    method: Method,
    shape: Shape,
    steps: int,
    sampling: SamplingConfig,
    how: tuple[bool, bool],
    device: torch.device,
) -> Cost:
    """The cost of a fit.

    Args:
        config: of the transformer.
        method: gives class and options; it is not changed.
        steps: of each stage.
        how: whether moments have 8 bits, and blocks are recomputed.
    """
    known: dict[int, float] = {}

    def flops(frames: int) -> float:
        if frames not in known:
            batch = shape.pairs(frames).batch(config, taken_by(method), "meta", torch.float32)
            known[frames] = useful_flops(config, method, batch)
        return known[frames]

    clip = sum(map(flops, shape.frames)) / len(shape.frames)
    clips, edits = len(shape.frames), REPEATS * shape.edited
    second = (clips * clip + edits * flops(1)) / (clips + edits)
    passes = sampling.steps * (2 if sampling.guidance != 1 else 1)
    eight_bit, checkpointing = how
    setting = Setting("single", 1, 2 if eight_bit else 8, checkpointing, shape.pairs(max(shape.frames)))
    total = {
        "stage 1": steps * clip * (1 + FORWARD * checkpointing),
        "stage 2": steps * second * (1 + FORWARD * checkpointing) if edits else 0.0,
        "edit": passes * FORWARD * flops(shape.whole),
    }
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return Cost(total, matmul_rate(device, dtype), estimate(config, method, setting))


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
