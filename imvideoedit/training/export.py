"""The adapter file for users: the moving average of the trained weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer

from imvideoedit.common.errors import UserError
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.methods.adapter_file import AdapterHeader, adapter_hash, read_state, save_adapter
from imvideoedit.training.averaging import full_tensor


class ExportAdapter(Callback):
    """Writes the adapter file when training ends.

    Args:
        path: of the file.
        sampling: the adapter's own, written into its header.
        dtype: of the stored weights.
        start_share: of ``task.start`` in the stored weights, in [0, 1]: between a start and what became of it lie
            adapters that keep what the start could (WiSE-FT, arXiv 2109.01903). 0 is what was trained.
        about: further entries of the header's training summary, JSON-able.

    Raises:
        UserError: the share is out of its range; at the begin of training, the run has no start to share.
    """

    def __init__(
        self,
        path: Path | str,
        sampling: SamplingConfig,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        start_share: float = 0.0,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        if not 0 <= start_share <= 1:
            raise UserError(f"callbacks.export.start_share is {start_share}; it must be in [0, 1]")
        self.path, self.sampling, self.dtype, self.start_share = Path(path), sampling, dtype, start_share
        self.about = dict(about or {})
        self.exported = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        task: Any = pl_module
        if self.start_share and task.start is None:
            raise UserError("callbacks.export.start_share needs a start; give task.start an adapter, or leave it at 0")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.exported = True
        export_average(trainer, pl_module, self.path, self.sampling, self.dtype, self.start_share, self.about)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.exported:  # resumed at its end: nothing is trained, but what is exported may be set otherwise
            self.on_train_end(trainer, pl_module)


def export_average(
    trainer: Trainer,
    task: Any,
    path: Path,
    sampling: SamplingConfig,
    dtype: str,
    start_share: float = 0.0,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write the moving average as an adapter file; a collective operation."""
    began = read_state(task.start) if start_share else {}
    state: dict[str, torch.Tensor] = {}
    with task.averaged():
        for name, tensor in task.method.state_dict().items():
            full = full_tensor(tensor.detach())
            if name in began:
                full = full.float().lerp(began[name].to(full.device).float(), start_share)
            if trainer.is_global_zero:
                state[name] = full.to("cpu", getattr(torch, dtype), copy=True)
    if trainer.is_global_zero:
        training = {"steps": trainer.global_step, "seed": task.seed, "sampler": vars(sampling), **(about or {})}
        if start_share:
            training["start"] = {"adapter": adapter_hash(task.start), "share": start_share}
        header = AdapterHeader.describe(task.method, task.backbone, training, task.backbone_hash)
        save_adapter(task.method, path, header, state)
