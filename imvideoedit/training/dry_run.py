"""Tell the cost first: ``dry_run=true`` runs real steps on random latents, or estimates where there is no GPU for them.

Nothing is written, no data or weights are needed: the transformer has random weights of the configured size.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from hydra.utils import instantiate
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from omegaconf import DictConfig, OmegaConf, open_dict
from torch.utils.data import DataLoader

from imvideoedit.common.errors import UserError
from imvideoedit.common.machine import matmul_rate
from imvideoedit.data.records import open_records
from imvideoedit.edit_batch import EditBatch
from imvideoedit.training.estimate import CARDS, GIB, TRAINERS, Setting, estimate, fitting
from imvideoedit.training.flops import Pairs, random_transformer, useful_products
from imvideoedit.training.monitor import peak_memory, stated_rate
from imvideoedit.training.stopping import accumulation
from imvideoedit.video.geometry import fit_size
from imvideoedit.wan.backbone import WAN_1_3B, Backbone
from imvideoedit.wan.locations import DEFAULT_SHIFT, locate

WIDE = (832, 480)  # the shape of the pictures whose steps are run
PAIRS = 13_000  # of the experiment, where its data are not there to be counted
PATIENCE = 120.0  # seconds of products at most for real steps on a CPU
STEPS = 3  # optimizer steps; the first is not timed
VAE = 8  # pixels of a latent pixel's side, of Wan


@dataclass(frozen=True)
class Rehearsal:
    """What real steps took.

    Attributes:
        seconds: of a pair in an optimizer step.
        peak, estimated: most bytes, found and foretold.
        floor: seconds of a pair's useful products at this device's own measured rate.
        mfu: useful products by the rate the maker states, or else the measured one.
    """

    seconds: float
    peak: int
    estimated: float
    floor: float
    mfu: float


def rehearse(config: DictConfig) -> None:
    """Print what a composed experiment costs on this device and on others."""
    plan = _plan(config)
    size, products = f"{plan.pairs.width * VAE}x{plan.pairs.height * VAE}", plan.useful / 1e12
    print(f"{size}: {products:.2f} TFLOP of useful products a pair; {plan.device}: {plan.rate / 1e9:.0f} GFLOP/s")
    if plan.device.type == "cuda" or plan.useful * _pairs_a_step(config) * STEPS / plan.rate < PATIENCE:
        found = rehearsed(config, plan)
        count, known = _pair_count(config)
        epochs = config.data.get("epochs", 1)
        print(
            f"measured: {found.seconds:.3f} s a pair, peak {found.peak / GIB:.2f} GiB (estimate "
            f"{found.estimated / GIB:.2f}), {found.floor / found.seconds:.0%} of the floor's speed, "
            f"MFU {found.mfu:.0%}; {count:,} pairs{known} x {epochs} epochs: "
            f"{count * epochs * found.seconds / 3600:.1f} hours on this device"
        )
    print_estimates(config, plan)


@dataclass(frozen=True)
class _Plan:
    """What the configured steps are made of."""

    sizes: dict[str, Any]
    pairs: Pairs
    method: Any
    device: torch.device
    dtype: torch.dtype
    useful: float  # FLOPs of a pair
    rate: float  # FLOP/s of this device


def _plan(config: DictConfig) -> _Plan:
    sizes = transformer_config(config.backbone.name)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    pairs, method = _pairs(config), instantiate(config.method)
    useful = useful_products(sizes, method, pairs) / pairs.count
    return _Plan(sizes, pairs, method, device, dtype, useful, matmul_rate(device, dtype))


def _pairs(config: DictConfig, count: int | None = None) -> Pairs:
    height, width = fit_size(*WIDE[::-1], config.sampling.max_area, VAE * 2)
    return Pairs(count or config.data.batch_size, height // VAE, width // VAE)


def rehearsed(config: DictConfig, plan: _Plan | None = None) -> Rehearsal:
    """Run a few real optimizer steps on this device."""
    plan = plan or _plan(config)
    clock = _run(config, plan)
    seconds = clock.seconds / _pairs_a_step(config)
    stated = stated_rate(plan.device) or plan.rate
    expected = sum(estimate(plan.sizes, plan.method, _setting(config, plan.pairs)).values())
    return Rehearsal(seconds, clock.peak, expected, plan.useful / plan.rate, plan.useful / stated / seconds)


def _setting(config: DictConfig, pairs: Pairs) -> Setting:
    """The configured one, on one device."""
    kind = str(OmegaConf.select(config, "trainer.strategy._target_") or "")
    offload = bool(OmegaConf.select(config, "trainer.strategy.offload"))
    trainer = ("zero2_offload" if offload else "zero2") if kind.endswith("zero2") else "single"
    moments = 2 if "8bit" in config.task.optimizer._target_ else 8
    return Setting(trainer, 1, moments, config.task.gradient_checkpointing, pairs)


def _pairs_a_step(config: DictConfig) -> int:
    return _micro_batches(config) * config.data.batch_size


def transformer_config(name: str) -> dict[str, Any]:
    """The architecture's numbers, from the backbone's folder where it is, else Wan 1.3B's."""
    try:
        place, revision = locate(name)
        return dict(WanTransformer3DModel.load_config(place, revision=revision, subfolder="transformer"))
    except (UserError, OSError):
        if name != "wan_1_3b":
            raise
        with torch.device("meta"):
            return dict(WanTransformer3DModel(**WAN_1_3B).config)


def print_estimates(config: DictConfig, plan: _Plan) -> None:
    """Every trainer on one and eight GPUs by part, with the smallest card that is enough."""
    own = _setting(config, plan.pairs)
    print(f"estimated GiB on each GPU, in batches of {plan.pairs.count}:")
    for trainer in TRAINERS:
        for devices in (1,) if trainer == "single" else (1, 8):
            setting = replace(own, trainer=trainer, devices=devices)
            parts = estimate(plan.sizes, plan.method, setting)
            total = sum(parts.values()) / GIB
            enough = next((name for name, size in CARDS.items() if size >= total), "no card listed")
            numbers = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items())
            print(f"  trainer={trainer} on {devices}: {total:.1f} ({numbers}); {enough}")


def _micro_batches(config: DictConfig) -> int:
    """Of an optimizer step on one process."""
    if config.global_batch is None:
        return config.trainer.accumulate_grad_batches
    return accumulation(config.global_batch, config.data.batch_size, 1)


def _run(config: DictConfig, plan: _Plan) -> "StepClock":
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    with plan.device:
        sizes = {key: value for key, value in plan.sizes.items() if not key.startswith("_")}
        transformer = random_transformer(sizes, plan.dtype)
    backbone = Backbone(config.backbone.name, None, transformer, None, None, None, DEFAULT_SHIFT)
    parts: Any = OmegaConf.merge(config.task, {"start": None, "auxiliary": None})
    with open_dict(parts):
        del parts["backbone"]  # given as an argument it would be taken for settings, being a dataclass
    task = instantiate(parts, _partial_=True)(backbone=backbone)
    micro = _micro_batches(config)
    settings = OmegaConf.merge(config.trainer, {"max_steps": STEPS, "max_epochs": -1})
    with open_dict(settings):
        settings.enable_checkpointing = settings.enable_progress_bar = False
        settings.accumulate_grad_batches = micro
        settings.val_check_interval, settings.limit_val_batches = None, 0
    clock = StepClock()
    trainer = instantiate(settings, callbacks=[clock], logger=False)
    trainer.fit(task, RandomPairs(plan.pairs.batch(transformer.config, "cpu", plan.dtype), STEPS * micro))
    return clock


class RandomPairs(LightningDataModule):
    """The same batch again and again."""

    def __init__(self, batch: EditBatch, count: int) -> None:
        super().__init__()
        self.batch, self.count = batch, count

    def train_dataloader(self) -> DataLoader:
        batches: Any = [self.batch] * self.count
        return DataLoader(batches, batch_size=None)


class StepClock(Callback):
    """Seconds of the fastest optimizer step after the first, and the most memory."""

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


def _pair_count(config: DictConfig) -> tuple[int, str]:
    path = config.data.get("path")
    if path and Path(path).is_dir():
        return len(open_records(path)), ""
    return PAIRS, " (assumed)"


@contextlib.contextmanager
def memory_mistakes(config: DictConfig) -> Iterator[None]:
    """Turn running out of memory into one line that names what would fit."""
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(out_of_memory(config, error)) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the CPU had no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def out_of_memory(config: DictConfig, error: BaseException) -> str:
    """What ran out, and which settings the estimate says would fit."""
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
