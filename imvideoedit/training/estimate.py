"""The GPU memory of a training run by part, from shapes alone.

Frozen weights are bfloat16, or quantised. ``single``, ``ddp`` and ``fsdp2`` hold the trained weights in float32 and
compute under autocast; ``zero2`` holds them in bfloat16, and shards their float32 copy, its average and the moments.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from imvideoedit.methods.base import Method
from imvideoedit.training.flops import Pairs, activation_bytes, method_like
from imvideoedit.training.strategies import BUCKET
from imvideoedit.wan.bases import meta_transformer
from imvideoedit.wan.quantized import weight_bytes

GIB = 2**30
RESERVE = 0.75 * GIB  # the driver, workspaces of libraries, fragmentation
CARDS = {
    "8 GB (RTX 4060)": 8,
    "12 GB (RTX 4070)": 12,
    "16 GB (RTX 4060 Ti, 4080)": 16,
    "24 GB (RTX 3090, 4090, A10)": 24,
    "40 GB (A100)": 40,
    "48 GB (L40S, A6000)": 48,
    "80 GB (A100, H100)": 80,
}
TRAINERS = ("single", "ddp", "zero2", "zero2_offload", "fsdp2")


@dataclass(frozen=True)
class Setting:
    """A training setup.

    Args:
        trainer: one of ``TRAINERS``.
        devices: GPUs in all.
        moments: bytes of optimizer state per trained parameter: 8 for AdamW, 2 for 8-bit AdamW.
        checkpointing: whether blocks are recomputed in the backward pass.
        pairs: of a batch of one process.
        quantization: of the frozen weights, see :func:`imvideoedit.wan.quantized.weight_bytes`.
        offload: whether blocks are on the device one by one, see :mod:`imvideoedit.training.block_offload`.
    """

    trainer: str
    devices: int
    moments: int
    checkpointing: bool
    pairs: Pairs
    quantization: str | None = None
    offload: bool = False


def estimate(config: Mapping[str, Any], method: Method, setting: Setting) -> dict[str, float]:
    """Bytes on each GPU by part; their sum is the peak.

    Args:
        config: of the transformer.
        method: gives class and options; it is not changed.
    """
    transformer = meta_transformer(dict(config))
    like = method_like(method)
    frozen = 0.0 if like.trains_backbone else weight_bytes(transformer, setting.quantization)
    block = 0.0 if setting.quantization is None else weight_bytes(transformer.blocks[0])
    held = weight_bytes(transformer.blocks[0], setting.quantization)
    whole = sum(p.numel() for p in transformer.parameters())
    like.install(transformer)
    kept = frozen_in(transformer) / whole  # the method may have dropped some
    frozen, held = frozen * kept, held * kept
    trained = sum(p.numel() for p in like.parameters() if p.requires_grad)
    zero = setting.trainer.startswith("zero2")
    weights = torch.bfloat16 if zero else torch.float32
    sizes = dict(transformer.config)
    activations = activation_bytes(sizes, method, setting.pairs, setting.checkpointing, weights, setting.offload)
    if setting.offload:
        frozen -= (transformer.config.num_layers - 2) * held
        activations -= 2 * 2 * frozen_in(transformer.blocks[0])  # which are counted among them
    parts = {"frozen weights": frozen, **_states(trained, setting)}
    if block:  # a block's weights in full, which its backward pass may keep
        parts["a block in full"] = block
    if setting.trainer == "fsdp2":  # one computes, the next is prefetched
        parts["gathered blocks"] = 2 * 2.0 * trained / transformer.config.num_layers
    return {**parts, "activations": float(activations), "reserve": RESERVE}


def frozen_in(module: nn.Module) -> int:
    """Frozen parameters of a module."""
    return sum(p.numel() for p in module.parameters() if not p.requires_grad)


def host_bytes(config: Mapping[str, Any], pairs: Pairs) -> float:
    """Bytes that wait on the CPU where blocks are offloaded: their weights, and their inputs in half precision."""
    transformer = meta_transformer(dict(config))
    own: Any = transformer.config
    tokens = pairs.count * pairs.frames * pairs.height * pairs.width / math.prod(own.patch_size)
    inputs = tokens * own.num_attention_heads * own.attention_head_dim
    return 2 * own.num_layers * (frozen_in(transformer.blocks[0]) + inputs)


def _states(trained: int, setting: Setting) -> dict[str, float]:
    """Bytes of the trained parameters, their gradients, optimizer state and average."""
    shard = trained / setting.devices
    if setting.trainer in ("zero2", "zero2_offload"):
        there = float(setting.trainer == "zero2")  # else offloaded to the CPU
        return {
            "trained weights": 2.0 * trained,
            "gradients": there * 4 * shard + (1 - there) * 2 * shard,  # summed in float32, there or on the CPU
            "float32 copy": there * 4 * shard,
            "moments": there * setting.moments * shard,
            "average": there * 4 * shard,
            "buffers": 3 * 2.0 * BUCKET,  # two to reduce, one to gather
        }
    own = shard if setting.trainer == "fsdp2" else float(trained)
    return {
        "trained weights": 4 * own,
        "gradients": 4 * own,
        "moments": setting.moments * own,
        "average": 4 * own,
    }


def fitting(config: Mapping[str, Any], methods: Mapping[str, Method], pairs: Pairs, room: float) -> list[str]:
    """Command-line options of the setups that need at most ``room`` bytes on each of one, four or eight GPUs."""
    found = []
    for name, method in methods.items():
        for trainer, devices, moments in (
            ("single", 1, 8),
            ("single", 1, 2),
            ("zero2_offload", 1, 8),
            ("zero2", 4, 8),
            ("zero2", 8, 8),
        ):
            need = sum(estimate(config, method, Setting(trainer, devices, moments, True, pairs)).values())
            if need <= room:
                eight = " optimizer=adamw_8bit" if moments == 2 else ""
                more = f" trainer.devices={devices}" if devices > 1 else ""
                options = f"method.adapter={name} trainer={trainer}{more}{eight} task.gradient_checkpointing=true"
                found.append(f"{options} ({need / GIB:.1f} GiB)")
    return found
