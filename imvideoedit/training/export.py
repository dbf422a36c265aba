"""The adapter file for users: the moving average of the trained weights."""

from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer

from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.methods.adapter_file import AdapterHeader, save_adapter
from imvideoedit.training.averaging import full_tensor


class ExportAdapter(Callback):
    """Writes the adapter file when training ends.

    Args:
        path: of the file.
        sampling: the adapter's own, written into its header.
        dtype: of the stored weights.
    """

    def __init__(
        self, path: Path | str, sampling: SamplingConfig, dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    ) -> None:
        self.path, self.sampling, self.dtype = Path(path), sampling, dtype

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        export_average(trainer, pl_module, self.path, self.sampling, self.dtype)


def export_average(trainer: Trainer, task: Any, path: Path, sampling: SamplingConfig, dtype: str) -> None:
    """Write the moving average as an adapter file; a collective operation."""
    state: dict[str, torch.Tensor] = {}
    with task.averaged():
        for name, tensor in task.method.state_dict().items():
            full = full_tensor(tensor.detach())
            if trainer.is_global_zero:
                state[name] = full.to("cpu", getattr(torch, dtype), copy=True)
    if trainer.is_global_zero:
        training = {"steps": trainer.global_step, "seed": task.seed, "sampler": vars(sampling)}
        save_adapter(task.method, path, AdapterHeader.describe(task.method, task.backbone, training), state)
