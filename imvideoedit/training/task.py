"""The Lightning module of every method: frozen backbone, trained method, optimizer and moving average.

Shapes: B batch, C latent channels, F latent frames, T text tokens, D text width.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from imvideoedit.common.bundled import adapter_path
from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import EditBatch
from imvideoedit.methods.adapter_file import warm_start
from imvideoedit.methods.base import Method
from imvideoedit.training.averaging import MovingAverage, ZeroAverage
from imvideoedit.training.batches import drop_texts
from imvideoedit.training.restored import apply_options, options_of
from imvideoedit.training.step_losses import StepLosses
from imvideoedit.training.stopping import time_share
from imvideoedit.training.strategies import FullySharded, Zero2, average_of, drop_gathered
from imvideoedit.wan.backbone import Backbone
from imvideoedit.wan.kernels import NATIVE, choose_attention, suited_kernel

VALIDATION_SIGMAS = (0.1, 0.3, 0.5, 0.7, 0.9)
BINS = 5
Schedule = Literal["constant", "cosine"]


class EditTask(LightningModule):
    """Trains a method in a frozen backbone by the method's own losses.

    The backbone is a plain attribute, so no checkpoint holds it and no strategy shards it. A checkpoint holds the
    method, its moving average and the optimizer. Noise and noise levels are a function of the seed and the batch's
    number in the run, so resuming is exact.

    Args:
        backbone: frozen; its transformer receives the method.
        method: not installed yet.
        optimizer: makes the optimizer from the trained parameters, such as ``partial(AdamW, lr=1e-4)``.
        warmup: optimizer steps until the full learning rate, at least 0.
        schedule: after the warmup: ``constant``, or ``cosine`` down to 0 at the trainer's last step, or at the end of
            its ``max_time`` where that comes first.
        ema_decay: of the moving average in [0, 1); smaller in the first steps, see :meth:`_update_average`.
        text_dropout: probability in [0, 1] of training with the empty text, for guidance; only for batches with the
            empty text's embedding.
        auxiliary: makes a module of further losses on outputs of blocks (its ``taps``) from the transformer, such as
            ``ContentReadouts``; it is trained too, where batches have labels, and thrown away.
        start: adapter file or ``bundled``, whose weights the method starts from; what it lacks is initialised as usual.
        gradient_checkpointing: recompute the blocks in the backward pass: less memory, more time.
        compile: True for the blocks, ``step`` for all losses as one graph, False for neither; ``auto`` for the blocks
            on a GPU where that can be done. attention: see ``wan.kernels``.
        seed: of initial weights, noise and noise levels.

    Raises:
        UserError: an argument is out of its range.
    """

    def __init__(
        self,
        backbone: Backbone,
        method: Method,
        optimizer: Callable[..., Optimizer],
        warmup: int = 100,
        schedule: Schedule = "constant",
        ema_decay: float = 0.999,
        text_dropout: float = 0.0,
        auxiliary: Callable[..., nn.Module] | None = None,
        start: Path | str | None = None,
        gradient_checkpointing: bool = False,
        compile: bool | Literal["auto", "step"] = "auto",
        attention: str = NATIVE,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if schedule not in ("constant", "cosine"):
            raise UserError(f"task.schedule is {schedule!r}; choose constant or cosine")
        if warmup < 0 or not 0 <= ema_decay < 1 or not 0 <= text_dropout <= 1:
            raise UserError(
                "need task.warmup >= 0, 0 <= task.ema_decay < 1 and 0 <= task.text_dropout <= 1; "
                f"got {warmup}, {ema_decay} and {text_dropout}"
            )
        self.backbone, self.make_optimizer = backbone, optimizer
        self.warmup, self.schedule, self.ema_decay = warmup, schedule, ema_decay
        self.text_dropout, self.seed, self.attention = text_dropout, seed, attention
        self.start = None if start is None else adapter_path(start)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            known = self.start is not None or method.trains_backbone or method.drops_weights
            self.backbone_hash = backbone.parameter_hash() if known else None
            method.install(backbone.transformer)
            if self.start is not None:
                warm_start(method, self.start, self.backbone_hash)
            self.auxiliary: Any = auxiliary(backbone.transformer) if auxiliary is not None else None
        if gradient_checkpointing:
            backbone.transformer.enable_gradient_checkpointing()
        if compile not in (True, False, "auto", "step"):
            raise UserError(f"task.compile is {compile!r}; choose auto, true, false or step")
        self.method = method.train()
        blocks = False if compile == "step" else compile
        self.losses_of = StepLosses(backbone.transformer, method, self.auxiliary, compile == "step", blocks)
        self.average: MovingAverage | ZeroAverage  # made when the trainer has shared out the weights
        self.bins = torch.zeros(2, BINS)  # sum and count of the losses by noise level since the last log row
        self.batches = 0  # of this process since the run's first step, also across resumes
        self.step_losses: list[tuple[Tensor, tuple[str, ...]]] = []  # and pairs, of the current optimizer step

    def trained(self) -> list[torch.nn.Parameter]:
        """The parameters that the optimizer moves, in a fixed order."""
        return [p for p in self.method.parameters() if p.requires_grad]

    def configure_model(self) -> None:
        """Shard the trained weights where the strategy is FSDP2; each process holds all frozen ones."""
        if hasattr(self, "average") or isinstance(self.trainer.strategy, Zero2):
            return
        if isinstance(self.trainer.strategy, FullySharded):
            self.trainer.strategy.shard(self.method, self.trainer.precision)
        self.average = MovingAverage(self.trained())

    def on_fit_start(self) -> None:
        self.log_every = max(getattr(self.trainer, "log_every_n_steps", 1), 1)
        for part in filter(None, (self.backbone.transformer, self.backbone.vae, self.backbone.text_encoder)):
            part.to(self.device)
        choose_attention(self.backbone.transformer, self.attention, self.device)
        self.losses_of.place_for(self.trainer, self.device)
        self.average = average_of(self.trainer) or self.average
        if isinstance(self.average, MovingAverage):
            self.average.to(self.device)

    def on_train_start(self) -> None:
        if self.trainer.ckpt_path:
            apply_options(self.trainer, self._asked)

    def training_step(self, batch: EditBatch, batch_idx: int) -> Tensor:
        if torch.is_autocast_enabled(self.device.type):
            # Each weight is used once per pass, so cached half-precision copies only take memory.
            torch.set_autocast_cache_enabled(False)
        generator = torch.Generator(self.device).manual_seed(self._draw_seed())
        self.batches += 1
        edits = drop_texts(self.method.labelled(batch), self.text_dropout, generator)
        sigma_B = self.method.objective.sample_sigma(len(edits.source_BCFHW), generator, self.device)
        point = self.method.training_point(edits, generator, sigma_B)
        with suited_kernel(self.backbone.transformer, edits.source_BCFHW), self.losses_of.announced(edits):
            losses, readings = self.losses_of(edits, *point)
        size = len(sigma_B)
        for name, loss_B in losses.items():
            self.log(f"train/{name}", loss_B.mean(), batch_size=size)
        total_B = torch.stack(list(losses.values())).sum(0)
        self.log("train/loss", total_B.mean(), batch_size=size, prog_bar=True)
        self._add_to_bins(sigma_B, total_B.detach().float())
        if (self.trainer.global_step + 1) % self.log_every == 0:
            self._log_bins()
        self.step_losses.append((total_B.detach().float(), edits.ids))
        if not readings:
            return total_B.mean()
        means = {name: loss_B.mean() for name, loss_B in readings.items()}
        for name, loss in means.items():
            self.log(f"auxiliary/{name}", loss, batch_size=size)
        return total_B.mean() + torch.stack(list(means.values())).sum()

    def _draw_seed(self) -> int:
        """The seed of one batch of one process; the odd factor separates the seeds of different runs."""
        place = self.batches * self.trainer.world_size + self.global_rank
        return (self.seed * 2_654_435_761_000_003 + place) % 2**62

    def _add_to_bins(self, sigma_B: Tensor, loss_B: Tensor) -> None:
        bin_B = (sigma_B * BINS).long().clamp(max=BINS - 1)
        rows = torch.stack([loss_B, torch.ones_like(loss_B)])
        self.bins = self.bins.to(self.device).index_add(1, bin_B, rows)

    def _log_bins(self) -> None:
        """Log the mean loss in each fifth of the noise levels since the last log row; empty bins are left out."""
        for index, (total, count) in enumerate(self.bins.T):
            if count:
                self.log(f"loss_by_sigma/{index / BINS:.1f}-{(index + 1) / BINS:.1f}", total / count, batch_size=1)

    def on_validation_epoch_start(self) -> None:
        self.average.swap()
        drop_gathered(self.method)

    on_validation_epoch_end = on_validation_epoch_start

    def validation_step(self, batch: EditBatch, batch_idx: int) -> None:
        """Losses of the moving average at fixed noise levels with fixed noise, comparable between runs and steps."""
        size, means, batch = len(batch.source_BCFHW), [], self.method.labelled(batch)
        for sigma in VALIDATION_SIGMAS:
            generator = torch.Generator().manual_seed(batch_idx * self.trainer.world_size + self.global_rank)
            sigma_B = torch.full((size,), sigma, device=self.device)
            losses = self.method.losses(self.backbone.transformer, batch, generator, sigma_B)
            means.append(torch.stack(list(losses.values())).sum(0).mean())
            self.log(f"validation/loss_at_{sigma}", means[-1], batch_size=size, sync_dist=True)
        self.log("validation/loss", torch.stack(means).mean(), batch_size=size, prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        auxiliary = [] if self.auxiliary is None else list(self.auxiliary.parameters())
        optimizer = self.make_optimizer([*self.trained(), *auxiliary])
        self._asked = options_of(optimizer)
        scheduler = LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _rate(self, step: int) -> float:
        """Factor of the learning rate at an optimizer step."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.schedule == "constant":
            return 1.0
        steps = self.trainer.estimated_stepping_batches
        done = max((step - self.warmup) / max(steps - self.warmup, 1), time_share(self.trainer))
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self.log("train/lr", optimizer.param_groups[0]["lr"])

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.trainer.fit_loop._should_accumulate():  # DeepSpeed calls this after every batch
            return
        step = self.trainer.global_step + 1  # the trainer counts this step after the hook
        self._update_average(step)
        self.step_losses = []
        if step % self.log_every == 0:
            self.bins = torch.zeros_like(self.bins)

    def _update_average(self, step: int) -> None:
        """decay = min(ema_decay, (1 + step) / (10 + step)), so that the average soon forgets the initial weights."""
        self.average.update(min(self.ema_decay, (1 + step) / (10 + step)))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the method holds the moving average of its weights; all processes must enter it."""
        self.on_validation_epoch_start()
        try:
            yield
        finally:
            self.on_validation_epoch_end()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if isinstance(self.average, MovingAverage):  # DeepSpeed's strategy saves its own
            checkpoint["ema"] = self.average.state()
        checkpoint["batches"] = self.batches * self.trainer.world_size

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.average.load(checkpoint["ema"])
        self.batches = checkpoint["batches"] // self.trainer.world_size
