"""What happens beside the training steps: whole checkpoints and the adapter for users."""

import logging
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import RichProgressBar

from imvideoedit.checkpoint import AdapterHeader, save_adapter
from imvideoedit.files import replacing
from imvideoedit.settings import Defaults
from imvideoedit.training.averaging import whole

Precision = Literal["32-true", "bf16-mixed"]


def fast_precision() -> Precision:
    """The precision to train in: bfloat16 where the GPU or the CPU computes in it, else float32."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = any(getattr(torch.cpu, check, bool)() for check in checks)
    return "bf16-mixed" if native else "32-true"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints beside their final place and renames them, so that a crash leaves the one before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)


class ExportAdapter(Callback):
    """Writes the moving average of the trained weights as an adapter file when training ends.

    Args:
        path: of the file.
        defaults: how the adapter is to be run; goes into its header.
        dtype: name of the stored type: ``float32``, ``bfloat16`` or ``float16``.
    """

    def __init__(
        self, path: Path | str, defaults: Defaults, dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    ) -> None:
        self.path, self.defaults, self.dtype = Path(path), defaults, dtype

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        export_average(trainer, pl_module, self.path, self.defaults, self.dtype)


def export_average(trainer: Trainer, task: Any, path: Path, defaults: Defaults, dtype: str) -> None:
    """Write the moving average as an adapter file; all processes must call."""
    state: dict[str, torch.Tensor] = {}
    with task.averaged():
        for name, tensor in task.method.state_dict().items():
            complete = whole(tensor.detach())
            if trainer.is_global_zero:
                state[name] = complete.to("cpu", getattr(torch, dtype), copy=True)
    if trainer.is_global_zero:
        training = {"steps": trainer.global_step, "seed": task.seed, "sampler": vars(defaults)}
        save_adapter(task.method, path, AdapterHeader.describe(task.method, task.backbone, training), state)


class TrainingBar(RichProgressBar):
    """A bar with the time left, counting a run's batches, also those before a resume; epochs only where they are."""

    @property
    def total_train_batches(self) -> int | float:
        return self.trainer.num_training_batches

    def _get_train_description(self, current_epoch: int) -> str:
        epochs = self.trainer.max_epochs
        return "training" if epochs in (None, -1, 1) else f"epoch {current_epoch + 1} of {epochs}"


def quiet_libraries() -> None:
    """Silence hints of Lightning and torch that a user here can do nothing about."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    hints = ("many workers", "overridden `transfer_batch", "not resumable", "Mismatch dtype", "LeafSpec", "non-empty")
    for hint in hints:
        warnings.filterwarnings("ignore", message=f".*{hint}")
