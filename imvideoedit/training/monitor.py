"""What is logged of a training run besides its losses, and when it is stopped as unhealthy."""

import time
from collections.abc import Callable
from typing import Any

import psutil
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import EditBatch
from imvideoedit.training.averaging import full_tensor
from imvideoedit.training.checkpoints import Checkpoints
from imvideoedit.training.flops import peak_flops, useful_flops
from imvideoedit.wan.forward import is_compiled

NEAR_0, NEAR_1 = 0.05, 0.95  # a gate below or above counts as near 0 or 1
MEAN_DECAY = 0.98  # of the running mean of the loss
MIN_STEPS = 50  # before a loss can count as exploded


class TrainingMonitor(Callback):
    """Logs throughput, MFU, memory, time spent waiting for data, gradient norm and gates; stops an exploding loss.

    Logged every ``log_every_n_steps`` optimizer steps: ``speed/pairs_per_second`` (of all processes), ``speed/mfu``
    (useful FLOP/s by :func:`peak_flops`), ``speed/waiting`` (fraction of the time spent waiting for data),
    ``memory/gib`` (peak), ``train/grad_norm``, and for each block with a gate ``gate/<block>/mean``, ``…/near_0`` and
    ``…/near_1``.

    Args:
        explosion: a step's loss may be at most this many times its running mean; above 1.

    Raises:
        UserError: ``explosion`` is out of its range; while training, the loss is not finite or exploded.
    """

    def __init__(self, explosion: float = 20.0) -> None:
        if explosion <= 1:
            raise UserError(f"callbacks.watch.explosion is {explosion}; it must be above 1")
        self.explosion = explosion
        self.mean, self.steps = 0.0, 0
        self._pairs = self._flops = self._waited = 0.0
        self._flops_per_latent = 0.0
        self._peak = 0.0
        self._last_step = -1
        self._gates: dict[str, Tensor] = {}
        self._hooks: list[Any] = []

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.mean, self.steps = state_dict["mean"], state_dict["steps"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = self._ended = time.monotonic()
        self._last_step = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._waited += time.monotonic() - self._ended
        if trainer.is_global_zero:
            self._pairs += len(batch.source_BCFHW)
            self._flops += self._useful_flops(pl_module, batch)
        if self._due(trainer) and not self._hooks:
            self._hooks = list(self._read_gates(pl_module))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if trainer.fit_loop._should_accumulate():
            return
        self._check_losses(trainer, pl_module)
        if self._due(trainer):
            task: Any = pl_module
            gradients = [full_tensor(p.grad.detach()) for p in task.trained() if p.grad is not None]
            if gradients:  # DeepSpeed stores them elsewhere
                pl_module.log("train/grad_norm", torch.nn.utils.get_total_norm(gradients))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self._ended = time.monotonic()
        if trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        if trainer.global_step % _every(trainer):
            return
        norm = getattr(trainer.model, "get_global_grad_norm", lambda: None)()
        if norm is not None:
            pl_module.log("train/grad_norm", float(norm))
        for name, value in self._gates.items():
            pl_module.log(name, value)
        for hook in self._hooks:
            hook.remove()
        self._gates, self._hooks = {}, []
        self._log_speed(trainer, pl_module)

    def _due(self, trainer: Trainer) -> bool:
        """Whether the current optimizer step is logged."""
        return (trainer.global_step + 1) % _every(trainer) == 0

    def _check_losses(self, trainer: Trainer, pl_module: LightningModule) -> None:
        task: Any = pl_module
        if not task.step_losses:
            return
        losses = torch.cat([loss_B for loss_B, _ in task.step_losses]).tolist()
        step_mean = sum(losses) / len(losses)
        exploded = self.steps >= MIN_STEPS and step_mean > self.explosion * self.mean
        finite = step_mean - step_mean == 0
        if not finite or exploded:
            names = [name for _, ids in task.step_losses for name in ids] or ["(unnamed)"]
            wrong = {name for name, loss in zip(names, losses, strict=False) if loss - loss != 0}
            callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
            newest = next((c.newest() for c in callbacks if isinstance(c, Checkpoints)), None)
            what = f"{step_mean:.3g}, {self.explosion:g} times its mean" if finite else "not finite"
            raise UserError(
                f"the loss of step {trainer.global_step + 1} is {what}, with the pairs "
                f"{', '.join(sorted(wrong) or names)}; the last good checkpoint is {newest or 'none'}; look at "
                "these pairs, or lower task.optimizer.lr, and run the same command again"
            )
        self.mean = step_mean if self.steps == 0 else MEAN_DECAY * self.mean + (1 - MEAN_DECAY) * step_mean
        self.steps += 1

    def _log_speed(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now = time.monotonic()
        seconds, device = now - self._began, trainer.strategy.root_device
        if self._pairs:
            if not self._peak:
                half = trainer.precision.startswith("bf16")
                self._peak = peak_flops(device, torch.bfloat16 if half else torch.float32)
            pl_module.log("speed/pairs_per_second", self._pairs * trainer.world_size / seconds)
            pl_module.log("speed/mfu", self._flops / seconds / self._peak)
        pl_module.log("speed/waiting", self._waited / seconds)
        pl_module.log("memory/gib", peak_memory(device) / 2**30)
        self._pairs = self._flops = self._waited = 0.0
        self._began = now

    def _useful_flops(self, pl_module: Any, batch: EditBatch) -> float:
        """FLOPs of a batch: counted for the first one, and scaled by the number of latents; buckets differ little."""
        size = batch.source_BCFHW[:, 0].numel()
        if not self._flops_per_latent:
            config = pl_module.backbone.transformer.config
            self._flops_per_latent = useful_flops(config, pl_module.method, batch) / size
        return self._flops_per_latent * size

    def _read_gates(self, pl_module: Any) -> Any:
        if is_compiled(pl_module.method.transformer):  # which takes no hooks
            return
        for name, (module, to_share) in pl_module.method.gauges().items():
            yield module.register_forward_hook(self._reader(name, to_share))

    def _reader(self, name: str, to_share: Callable[[Tensor], Tensor]) -> Any:
        def read(module: nn.Module, args: Any, output: Tensor) -> None:
            with torch.no_grad():
                value = to_share(output)
                facts = {"mean": value.float().mean(), "near_0": (value < NEAR_0).float().mean()}
                facts["near_1"] = (value > NEAR_1).float().mean()
                self._gates |= {f"{name}/{fact}": share for fact, share in facts.items()}

        return read


def _every(trainer: Any) -> int:
    """Optimizer steps between two rows of the log."""
    return max(trainer.log_every_n_steps, 1)


def peak_memory(device: torch.device) -> int:
    """Peak bytes of this process's tensors on a GPU; on a CPU the bytes that the process has now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss
