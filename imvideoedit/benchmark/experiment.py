"""Steps of the 13K experiment at full size with random weights, and the rate of encoding its pairs.

Every case runs the trainer on random latents, and compares its peak memory with the estimate.
"""

import io
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.common.hydra_command import CONF
from imvideoedit.training.dry_run import PAIRS, measure_step
from imvideoedit.training.flops import random_transformer
from imvideoedit.video.geometry import to_model
from imvideoedit.video.images import load_rgb
from imvideoedit.wan.backbone import Backbone
from imvideoedit.wan.locations import DEFAULT_SHIFT

EPOCHS = 5
BUDGET = 480.0  # seconds after which no further case starts
LEAN = ("trainer=single", "task.gradient_checkpointing=true", "data.batch_size=1")
FAST = ("trainer=single", "optimizer=adamw")
CASES: dict[str, tuple[str, ...]] = {
    "full, batch 1": (*LEAN, "optimizer=adamw"),
    "full, 8-bit moments, batch 1": (*LEAN, "optimizer=adamw_8bit"),
    "lora, batch 1": (*LEAN, "optimizer=adamw", "method.adapter=lora"),
    "full, ZeRO-2 on one GPU, batch 1": ("trainer=zero2", "trainer.devices=1", "data.batch_size=1"),
    "full, batch 8": (*FAST, "task.gradient_checkpointing=true", "data.batch_size=8"),
    "full, batch 8, no checkpointing": (*FAST, "task.gradient_checkpointing=false", "data.batch_size=8"),
    "full, batch 8, no checkpointing, compiled": (
        *FAST, "task.gradient_checkpointing=false", "task.compile=true", "data.batch_size=8",
    ),
    "full, batch 16, no checkpointing, compiled": (
        *FAST, "task.gradient_checkpointing=false", "task.compile=true", "data.batch_size=16",
    ),
    "full, batch 16, compiled": (
        *FAST, "task.gradient_checkpointing=true", "task.compile=true", "data.batch_size=16",
    ),
}  # fmt: skip


def measure_experiment(small: bool = False) -> dict[str, Any]:
    """Run all cases, print a line for each, and return the results.

    Args:
        small: size of the nano backbone, to test the command without a GPU.
    """
    began = time.perf_counter()
    results: dict[str, Any] = {"encoded_pairs_per_second": encoding_rate(small)}
    print(f"encoding: {results['encoded_pairs_per_second']:.1f} pairs a second", flush=True)
    for name, overrides in CASES.items():
        if time.perf_counter() - began > BUDGET:
            results[name] = {"left_out": "out of time"}
        else:
            results[name] = _case(composed(overrides, small))
        print(f"{name}: {_line(results[name])}", flush=True)
    full = [case for name, case in results.items() if name.startswith("full") and "seconds_a_pair" in case]
    if full:
        best = min(full, key=lambda case: case["seconds_a_pair"])
        results["minutes_of_the_experiment"] = PAIRS * EPOCHS * best["seconds_a_pair"] / 60
        results["mfu"] = best["mfu"]
        minutes = f"{results['minutes_of_the_experiment']:.0f} minutes"
        print(f"{PAIRS:,} pairs, {EPOCHS} epochs, by the best of these: {minutes}, MFU {best['mfu']:.0%}")
    return results


def composed(overrides: tuple[str, ...], small: bool) -> DictConfig:
    """The experiment's configuration with these overrides."""
    tiny = ["backbone=nano", "sampling.max_area=4096", "global_batch=16", "trainer.precision=32-true"] if small else []
    GlobalHydra.instance().clear()
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("train", ["+experiment=13k", *tiny, *overrides])


def _case(config: DictConfig) -> dict[str, Any]:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        found = measure_step(config)
    except (RuntimeError, UserError) as error:  # a case that fails here must not stop the others
        return {"left_out": str(error).splitlines()[0]}
    return {
        "seconds_a_pair": found.seconds,
        "mfu": found.mfu,
        "of_the_floors_speed": found.floor / found.seconds,
        "peak_gib": found.peak / 2**30,
        "estimated_gib": found.estimated / 2**30,
    }


def _line(case: dict[str, Any]) -> str:
    if "left_out" in case:
        return f"left out: {case['left_out']}"
    return (
        f"{case['seconds_a_pair']:.3g} s a pair, MFU {case['mfu']:.0%}, "
        f"{case['of_the_floors_speed']:.0%} of the floor's speed, "
        f"peak {case['peak_gib']:.2f} GiB (estimated {case['estimated_gib']:.2f})"
    )


def encoding_rate(small: bool = False, count: int = 64) -> float:
    """Pairs per second, decoded from PNG and encoded by an autoencoder of full size with random weights."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    height, width = (64, 64) if small else (480, 832)
    count = 4 if small else count
    vae: Any = AutoencoderKLWan(**({"base_dim": 8} if small else {})).requires_grad_(False).eval().to(device)
    transformer = random_transformer({"num_layers": 1, "num_attention_heads": 1, "ffn_dim": 8}, torch.float32)
    backbone = Backbone("random", None, transformer, vae, None, None, DEFAULT_SHIFT)
    pixels = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((width, height)).save(file, "png")
    seconds = 0.0
    with ThreadPoolExecutor() as threads:
        for timed in (False, True):
            began = time.perf_counter()
            images = threads.map(load_rgb, [file.getvalue()] * 2 * count)
            for _ in range(2 * count // 8):
                video_BCFHW = torch.cat([to_model([next(images)]) for _ in range(8)])
                backbone.encode_video(video_BCFHW).half().cpu()
            seconds = time.perf_counter() - began if timed else 0.0
    return count / seconds
