"""Tell the cost first: ``dry_run=true`` runs real steps on random latents, or estimates where there is no GPU for them.

Nothing is written, no data or weights are needed: the transformer has random weights of the configured size.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from hydra.utils import instantiate
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from omegaconf import DictConfig, OmegaConf, open_dict
from torch.utils.data import DataLoader

from imvideoedit.backbone import DEFAULT_SHIFT, WAN_1_3B, Backbone
from imvideoedit.benchmark.measure import product_rate
from imvideoedit.data.records import open_records
from imvideoedit.errors import UserError
from imvideoedit.geometry import fit_size
from imvideoedit.locations import locate
from imvideoedit.methods.base import EditBatch
from imvideoedit.training.costs import Pairs, random_transformer, useful_products
from imvideoedit.training.estimate import CARDS, GIB, TRAINERS, Setting, estimate, fitting
from imvideoedit.training.stopping import accumulation
from imvideoedit.training.watching import peak_memory, stated_rate

WIDE = (16, 9)  # the shape of the pictures whose steps are run
PAIRS = 13_000  # of the experiment, where its data are not there to be counted
PATIENCE = 120.0  # seconds of products at most for real steps on a CPU
STEPS = 3  # optimizer steps; the first is not timed
VAE = 8  # pixels of a latent pixel's side, of Wan


def rehearse(config: DictConfig) -> None:
    """Print what a composed experiment costs on this device and on others."""
    sizes = transformer_config(config.backbone.name)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    height, width = fit_size(*WIDE[::-1], config.sampler.max_area, VAE * 2)
    pairs = Pairs(config.data.batch_size, height // VAE, width // VAE)
    method = instantiate(config.method)
    useful = useful_products(sizes, method, pairs) / pairs.count
    rate = product_rate(device, dtype)
    print(f"{width}x{height}: {useful / 1e12:.2f} TFLOP of useful products a pair; {device}: {rate / 1e12:.2f} TFLOP/s")
    work = useful * _micro_batches(config) * pairs.count
    if device.type == "cuda" or work * STEPS / rate < PATIENCE:
        seconds, peak = _run(config, sizes, pairs, device, dtype)
        _report(config, useful, rate, seconds, peak, device)
    print_estimates(config, sizes, method, pairs)


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


def print_estimates(config: DictConfig, sizes: dict[str, Any], method: Any, pairs: Pairs) -> None:
    """The configured setting by part, then every trainer on one and eight GPUs, with the cards that are enough."""
    moments = 2 if "8bit" in config.task.optimizer._target_ else 8
    print(f"estimated GiB on each GPU, {pairs.count} pairs at a time (a card needs a little more than the sum):")
    for trainer in TRAINERS:
        for devices in (1, 8):
            if trainer == "single" and devices > 1:
                continue
            setting = Setting(trainer, devices, moments, config.task.gradient_checkpointing, pairs)
            parts = estimate(sizes, method, setting)
            total = sum(parts.values()) / GIB
            cards = [name for name, size in CARDS.items() if size >= total]
            numbers = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items())
            print(
                f"  trainer={trainer} on {devices}: {total:.1f} ({numbers}); {cards[0] if cards else 'no card listed'}"
            )


def _micro_batches(config: DictConfig) -> int:
    """Of an optimizer step on one process."""
    if config.global_batch is None:
        return config.trainer.accumulate_grad_batches
    return accumulation(config.global_batch, config.data.batch_size, 1)


def _run(
    config: DictConfig, sizes: dict[str, Any], pairs: Pairs, device: torch.device, dtype: torch.dtype
) -> tuple[float, int]:
    """Seconds of a pair in an optimizer step, and peak bytes."""
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    with device:
        transformer = random_transformer({k: v for k, v in sizes.items() if not k.startswith("_")}, dtype)
    backbone = Backbone(config.backbone.name, None, transformer, None, None, None, DEFAULT_SHIFT)
    task = instantiate(OmegaConf.merge(config.task, {"start": None, "auxiliary": None}), backbone=backbone)
    micro = _micro_batches(config)
    settings = OmegaConf.merge(config.trainer, {"max_steps": STEPS, "max_epochs": -1, "limit_val_batches": 0})
    with open_dict(settings):
        settings.enable_checkpointing = settings.enable_progress_bar = False
        settings.accumulate_grad_batches = micro
        settings.val_check_interval = None
    clock = StepClock()
    trainer = instantiate(settings, callbacks=[clock], logger=False)
    trainer.fit(task, RandomPairs(pairs.batch(transformer.config, "cpu", dtype), STEPS * micro))
    return clock.seconds / (micro * pairs.count), clock.peak


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


def _report(config: DictConfig, useful: float, rate: float, seconds: float, peak: int, device: torch.device) -> None:
    count, known = _pair_count(config)
    hours = count * max(config.trainer.max_epochs, 1) * seconds / 3600
    peak_rate = stated_rate(device) or rate
    print(
        f"measured: {seconds:.3f} s a pair, peak {peak / GIB:.2f} GiB, {useful / rate / seconds:.0%} of the floor's "
        f"speed, MFU {useful / peak_rate / seconds:.0%}; {count:,} pairs{known} x {max(config.trainer.max_epochs, 1)} "
        f"epochs: {hours:.1f} hours on this one device"
    )


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
    height, width = fit_size(*WIDE[::-1], config.sampler.max_area, VAE * 2)
    options = OmegaConf.to_container(config.method, resolve=True)
    methods = {kind: instantiate({**options, "adapter": kind}) for kind in ("full", "lora")}  # type: ignore[dict-item]
    choices = fitting(sizes, methods, Pairs(1, height // VAE, width // VAE), room)
    card = "this GPU" if cuda else "a 24 GB card"
    return (
        f"out of memory with data.batch_size={config.data.batch_size} ({str(error).splitlines()[0]}); by the estimate "
        f"{card} is enough at data.batch_size=1 for: {'; '.join(choices) or 'none of the trainers'}"
    )
