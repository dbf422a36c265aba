"""What a fit costs, before it starts and from shapes alone: FLOPs and time of its stages and its edit, and memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from imvideoedit.common.machine import matmul_rate
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.methods.base import Method
from imvideoedit.methods.lora_edit_samples import REPEATS
from imvideoedit.training.estimate import GIB, Setting, estimate, host_bytes
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
class Memory:
    """Memory of a training step by estimate, bytes by part.

    Attributes:
        whole: on a GPU that holds all blocks at once.
        offloaded: on a GPU with the blocks one by one.
        host: bytes that wait on the CPU then.
    """

    whole: dict[str, float]
    offloaded: dict[str, float]
    host: float

    @classmethod
    def of(cls, config: Mapping[str, Any], method: Method, pairs: Pairs, eight_bit: bool, recomputed: bool) -> "Memory":
        """That of a step.

        Args:
            config: of the transformer.
            method: gives class and options; it is not changed.
            pairs: the largest sample.
            eight_bit: moments have 8 bits.
            recomputed: blocks are, also where all are on the GPU at once.
        """
        setting = Setting("single", 1, 2 if eight_bit else 8, recomputed, pairs)
        one_by_one = replace(setting, checkpointing=True, offload=True)
        whole, offloaded = (estimate(config, method, each) for each in (setting, one_by_one))
        return cls(whole, offloaded, host_bytes(config, pairs))

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"memory of a training step on a GPU by estimate: {_parts(self.whole)}"
        yield f"with --offload on: {_parts(self.offloaded)}, and {self.host / GIB:.2f} GiB on the CPU"


@dataclass(frozen=True)
class Cost:
    """What a fit costs.

    Attributes:
        flops: by stage.
        rate: FLOP/s of this device's matrix multiplications, measured now.
    """

    flops: dict[str, float]
    rate: float

    def line(self) -> str:
        """For people."""
        parts = ", ".join(f"{name} {flops / 1e12:.3g} TFLOP" for name, flops in self.flops.items() if flops)
        least = sum(self.flops.values()) / self.rate
        return f"cost: {parts}; at {self.rate / 1e9:.0f} GFLOP/s, as measured here, at least {_time(least)}"


def cost_of(
    config: Mapping[str, Any],
    method: Method,
    shape: Shape,
    steps: int,
    sampling: SamplingConfig,
    recomputed: bool,
    device: torch.device,
) -> Cost:
    """The cost of a fit.

    Args:
        config: of the transformer.
        method: gives class and options; it is not changed.
        steps: of each stage.
        recomputed: whether blocks are, in the backward pass.
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
    total = {
        "stage 1": steps * clip * (1 + FORWARD * recomputed),
        "stage 2": steps * second * (1 + FORWARD * recomputed) if edits else 0.0,
        "edit": passes * FORWARD * flops(shape.whole),
    }
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return Cost(total, matmul_rate(device, dtype))


def _parts(memory: Mapping[str, float]) -> str:
    details = ", ".join(f"{name} {size / GIB:.2f}" for name, size in memory.items())
    return f"{sum(memory.values()) / GIB:.2f} GiB ({details})"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
