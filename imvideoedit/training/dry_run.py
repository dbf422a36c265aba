"""The cost of an experiment before it runs: real steps on random latents where that is quick, and memory estimates.

Nothing is written, and no data or weights are needed: the transformer has random weights of the configured size.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from omegaconf import DictConfig, OmegaConf, open_dict
from torch.utils.data import DataLoader

from imvideoedit.common.errors import UserError
from imvideoedit.common.machine import is_out_of_memory, matmul_rate
from imvideoedit.data.records import open_records
from imvideoedit.edit_batch import EditBatch
from imvideoedit.training.batches import accumulation_steps
from imvideoedit.training.estimate import CARDS, GIB, TRAINERS, Setting, estimate, fitting
from imvideoedit.training.flops import GROUP, Pairs, peak_flops, random_transformer, useful_flops
from imvideoedit.training.monitor import peak_memory
from imvideoedit.video.geometry import fit_size
from imvideoedit.wan.backbone import Backbone
from imvideoedit.wan.bases import autoencoder_config, pixel_multiple_of, transformer_config
from imvideoedit.wan.locations import DEFAULT_SHIFT
from imvideoedit.wan.quantizations import GGUF, LARGEST_GGUF

WIDE = (832, 480)  # width and height whose aspect ratio the measured pairs have
PAIRS = 13_000  # of the experiment, where its data set is missing
CPU_SECONDS = 120.0  # of matrix multiplications at most for real steps on a CPU
STEPS = 3  # optimizer steps; the first is not timed


@dataclass(frozen=True)
class StepCost:
    """What measured steps cost.

    Attributes:
        seconds: per pair.
        peak, estimated: peak bytes, measured and estimated.
        floor: seconds of a pair's useful FLOPs at this device's measured rate of matrix multiplications.
        mfu: useful FLOP/s by :func:`peak_flops`.
    """

    seconds: float
    peak: int
    estimated: float
    floor: float
    mfu: float


class Plan:
    """The configured steps, on this device."""

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.sizes = transformer_config(config.backbone.name)
        self.pairs, self.method = _pairs(config, config.data.batch_size), instantiate(config.method)
        self.accumulated = config.trainer.accumulate_grad_batches
        if config.global_batch is not None:
            self.accumulated = accumulation_steps(config.global_batch, config.data.batch_size, 1)

    @cached_property
    def flops(self) -> float:
        """Useful FLOPs of a pair."""
        batch = self.pairs.batch_of(self.sizes, self.method, "meta", torch.float32)
        return useful_flops(self.sizes, self.method, batch) / self.pairs.count

    @cached_property
    def rate(self) -> float:
        """FLOP/s of this device's matrix multiplications."""
        return matmul_rate(self.device, self.dtype)

    @property
    def pairs_per_step(self) -> int:
        """Pairs in an optimizer step."""
        return self.accumulated * self.pairs.count

    def setting(self) -> Setting:
        """The configured training setup, on one device."""
        kind = str(OmegaConf.select(self.config, "trainer.strategy._target_") or "")
        offload = bool(OmegaConf.select(self.config, "trainer.strategy.offload"))
        trainer = ("zero2_offload" if offload else "zero2") if kind.endswith("zero2") else "single"
        moments = 2 if "8bit" in self.config.task.optimizer._target_ else 8
        own, file = (self.config.backbone.get(name) for name in ("quantization", "file"))
        if file and str(file).endswith(GGUF):
            own = LARGEST_GGUF
        return Setting(trainer, 1, moments, self.config.task.gradient_checkpointing, self.pairs, own)


def dry_run(config: DictConfig) -> None:
    """Print what a composed experiment costs on this device and on others."""
    plan = Plan(config)
    pairs = plan.pairs
    size = f"{pairs.width * pairs.pixels}x{pairs.height * pairs.pixels}"
    size += f", {(pairs.frames - 1) * GROUP + 1} frames" if pairs.frames > 1 else ""
    print(f"{size}: {plan.flops / 1e12:.2f} useful TFLOPs per pair; {plan.device}: {plan.rate / 1e9:.0f} GFLOP/s")
    if plan.setting().quantization is not None:
        print("a quantised backbone: no real steps, for which no weights are loaded")
    elif plan.device.type == "cuda" or plan.flops * plan.pairs_per_step * STEPS / plan.rate < CPU_SECONDS:
        cost = measure_step(config, plan)
        count, assumed = pair_count(config)
        epochs = config.data.get("epochs", 1)
        print(
            f"measured: {cost.seconds:.3f} s per pair, peak {cost.peak / GIB:.2f} GiB (estimate "
            f"{cost.estimated / GIB:.2f}), {cost.floor / cost.seconds:.0%} of the floor's speed, "
            f"MFU {cost.mfu:.0%}; {count:,} pairs{assumed} x {epochs} epochs: "
            f"{count * epochs * cost.seconds / 3600:.1f} hours on this device"
        )
    print_estimates(plan)


def measure_step(config: DictConfig, plan: Plan | None = None) -> StepCost:
    """Run a few real optimizer steps on this device."""
    plan = plan or Plan(config)
    clock = _run(config, plan)
    seconds = clock.seconds / plan.pairs_per_step
    estimated = sum(estimate(plan.sizes, plan.method, plan.setting()).values())
    mfu = plan.flops / peak_flops(plan.device, plan.dtype) / seconds
    return StepCost(seconds, clock.peak, estimated, plan.flops / plan.rate, mfu)


def print_estimates(plan: Plan) -> None:
    """Memory of every trainer on one and eight GPUs by part, with the smallest card that is enough."""
    print(f"estimated GiB on each GPU, in batches of {plan.pairs.count}:")
    for trainer in TRAINERS:
        for devices in (1,) if trainer == "single" else (1, 8):
            setting = replace(plan.setting(), trainer=trainer, devices=devices)
            parts = estimate(plan.sizes, plan.method, setting)
            total = sum(parts.values()) / GIB
            enough = next((name for name, size in CARDS.items() if size >= total), "no card listed")
            details = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items())
            print(f"  trainer={trainer} on {devices}: {total:.1f} ({details}); {enough}")


def _run(config: DictConfig, plan: Plan) -> "StepClock":
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    with plan.device:
        sizes = {key: value for key, value in plan.sizes.items() if not key.startswith("_")}
        transformer = random_transformer(sizes, plan.dtype)
    backbone = Backbone(config.backbone.name, None, transformer, None, None, None, DEFAULT_SHIFT)
    parts: Any = OmegaConf.merge(config.task, {"start": None, "auxiliary": None})
    with open_dict(parts):
        del parts["backbone"]  # Hydra would take the argument, a dataclass, for a config
    task = instantiate(parts, _partial_=True)(backbone=backbone)
    settings = OmegaConf.merge(config.trainer, {"max_steps": STEPS, "max_epochs": -1})
    with open_dict(settings):
        settings.enable_checkpointing = settings.enable_progress_bar = False
        settings.accumulate_grad_batches = plan.accumulated
        settings.val_check_interval, settings.limit_val_batches = None, 0
    clock = StepClock()
    trainer = instantiate(settings, callbacks=[clock], logger=False)
    batch = plan.pairs.batch_of(transformer.config, plan.method, "cpu", plan.dtype)
    trainer.fit(task, RepeatedBatch(batch, STEPS * plan.accumulated))
    return clock


class RepeatedBatch(LightningDataModule):
    """One batch, ``count`` times."""

    def __init__(self, batch: EditBatch, count: int) -> None:
        super().__init__()
        self.batch, self.count = batch, count

    def train_dataloader(self) -> DataLoader:
        batches: Any = [self.batch] * self.count
        return DataLoader(batches, batch_size=None)


class StepClock(Callback):
    """Seconds of the fastest optimizer step after the first, and peak bytes."""

    def __init__(self) -> None:
        self.seconds, self.peak, self._began, self._step = float("inf"), 0, 0.0, 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.peak = max(self.peak, peak_memory(trainer.strategy.root_device))
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._began:
            self.seconds = min(self.seconds, now - self._began)
        self._began = now


def _pairs(config: DictConfig, count: int) -> Pairs:
    pixels = autoencoder_config(config.backbone.name)["scale_factor_spatial"]
    height, width = fit_size(*WIDE[::-1], config.sampling.max_area, pixel_multiple_of(config.backbone.name))
    frames = config.data.get("frames", 1)
    longest = frames if isinstance(frames, int) else max(frames)
    return Pairs(count, height // pixels, width // pixels, frames=(longest - 1) // GROUP + 1, pixels=pixels)


def pair_count(config: DictConfig) -> tuple[int, str]:
    """Pairs of the configured data set, or of the paper's where it is not there; and a word on which, for people."""
    path = config.data.get("path")
    if path and Path(path).exists():
        return len(open_records(path, config.data.get("format", "auto"), config.data.get("columns"))), ""
    return PAIRS, " (assumed)"


@contextlib.contextmanager
def advise_on_memory(config: DictConfig) -> Iterator[None]:
    """Turn running out of memory into a ``UserError`` that names settings that fit."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(out_of_memory_advice(config, error)) from error


def out_of_memory_advice(config: DictConfig, error: BaseException) -> str:
    """The settings that fit by the estimate, in one line."""
    cuda = torch.cuda.is_available()
    room = float(torch.cuda.get_device_properties(0).total_memory) if cuda else 24.0 * GIB
    sizes = transformer_config(config.backbone.name)
    options = OmegaConf.to_container(config.method, resolve=True)
    methods = {kind: instantiate({**options, "adapter": kind}) for kind in ("full", "lora")}  # type: ignore[dict-item]
    choices = fitting(sizes, methods, _pairs(config, 1), room)
    card = "this GPU" if cuda else "a 24 GB card"
    return (
        f"out of memory with data.batch_size={config.data.batch_size} ({str(error).splitlines()[0]}); by the estimate "
        f"{card} is enough at data.batch_size=1 for: {'; '.join(choices) or 'none of the trainers'}"
    )
