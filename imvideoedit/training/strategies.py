"""Sharded training by several processes: ZeRO-2 by DeepSpeed, FSDP2 by torch."""

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.strategies import DeepSpeedStrategy, ModelParallelStrategy, Strategy
from safetensors.torch import save
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from imvideoedit.common.errors import UserError
from imvideoedit.common.tensor_file import TensorFile
from imvideoedit.methods.base import Method
from imvideoedit.training.averaging import ZeroAverage
from imvideoedit.training.checkpoints import write_errors
from imvideoedit.training.optimizers import MuonWithAdamW

BUCKET = 50_000_000  # values reduced or gathered at once: a tenth of DeepSpeed's default, whose buffers take gigabytes


class Zero2(DeepSpeedStrategy):
    """DeepSpeed's ZeRO-2: gradients and optimizer state are sharded. Also runs on CPUs, for tests.

    A checkpoint is a folder: DeepSpeed's files, and each process's partition of the moving average.
    """

    def setup_environment(self) -> None:
        if isinstance(self.accelerator, CUDAAccelerator):
            super().setup_environment()
        else:
            super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        if isinstance(self.accelerator, CUDAAccelerator):
            super().setup_distributed()
            return
        # DeepSpeed compiles a shared-memory helper at first use, which takes minutes and a compiler; gloo needs none.
        backend: Any = importlib.import_module("deepspeed.comm.torch")
        backend.build_shm_op = lambda: None
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    @property
    def root_device(self) -> torch.device:
        if isinstance(self.accelerator, CUDAAccelerator):
            return super().root_device
        return torch.device("cpu", self.local_rank)

    def setup(self, trainer: Any) -> None:
        # Batches keep their types: the method casts what it computes with, and latents and noise stay float32.
        self.precision_plugin.convert_input = lambda batch: batch  # type: ignore[method-assign, assignment]
        super().setup(trainer)

    def save_checkpoint(self, checkpoint: dict, filepath: Any, storage_options: Any = None) -> None:
        stage: Any = importlib.import_module("deepspeed.runtime.zero.config").ZeroStageEnum
        # By value, as newer Pythons do; 3.11.2 pickles a call of getattr, which loading refuses.
        stage.__reduce_ex__ = lambda self, protocol: (type(self), (self.value,))
        with write_errors():
            super().save_checkpoint(checkpoint, filepath, storage_options)
        task: Any = self.lightning_module
        parts = {str(number): part for number, part in enumerate(task.average.state())}
        self._average_file(Path(filepath)).write_bytes(save(parts))

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        with _tensors_only():
            client = super().load_checkpoint(checkpoint_path, weights_only)
        parts = TensorFile(self._average_file(Path(checkpoint_path)), "part of the checkpoint").tensors()
        client["ema"] = [parts[str(number)] for number in range(len(parts))]
        return client

    def _average_file(self, folder: Path) -> Path:
        return folder / f"average-{self.global_rank:05d}.safetensors"


def zero2(offload: bool = False) -> Strategy:
    """ZeRO-2; with ``offload`` the optimizer's state is kept, and its step computed, on the CPU.

    Gradients of an accumulation add up in float32.

    Raises:
        UserError: DeepSpeed is not installed.
    """
    _require_deepspeed()
    settings: dict[str, Any] = {
        "stage": 2,
        "contiguous_gradients": True,
        "overlap_comm": True,
        "reduce_scatter": True,
        "reduce_bucket_size": BUCKET,
        "allgather_bucket_size": BUCKET,
    }
    if offload:
        settings["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return Zero2(
        config={
            "zero_optimization": settings,
            # Of many small gradients bfloat16, the default, loses those below a 256th of the sum. Between processes
            # they travel in the precision of the weights.
            "data_types": {"grad_accum_dtype": "fp32"},
            "zero_force_ds_cpu_optimizer": False,  # torch's AdamW is fused on CPUs, too
            "train_micro_batch_size_per_gpu": 1,  # only for DeepSpeed's speed log
        }
    )


def fsdp2(reshard_after_forward: bool = True) -> Strategy:
    """FSDP2: trained weights, gradients and optimizer state are sharded; a checkpoint is one file with all of it.

    Args:
        reshard_after_forward: False keeps gathered weights until the backward pass, as ZeRO-2 does: half of the
            communication, and the memory of all trained weights.
    """
    strategy = FullySharded(tensor_parallel_size=1, save_distributed_checkpoint=False)
    strategy.reshard_after_forward = reshard_after_forward
    return strategy


class FullySharded(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, whose data-parallel size is all processes."""

    reshard_after_forward = True

    def setup_environment(self) -> None:
        if self._data_parallel_size == "auto":
            self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def shard(self, method: Method, precision: str) -> None:
        """Shard a method over all processes, see :func:`shard_method`.

        Raises:
            UserError: it trains the backbone, which is gathered whole.
        """
        if method.trains_backbone:
            raise UserError(
                f"trainer=fsdp2 cannot train all of a backbone, as {method.name} does with method.adapter=full; "
                "choose trainer=zero2, or method.adapter=lora"
            )
        mesh: Any = self.device_mesh
        shard_method(method, mesh["data_parallel"], precision, self.reshard_after_forward)


def shard_method(method: Method, mesh: Any, precision: str, reshard_after_forward: bool = True) -> None:
    """Shard a method by FSDP2; the weights of each of its units are gathered for a call, in its precision."""
    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    policy = half if precision == "bf16-mixed" else MixedPrecisionPolicy()
    for unit in method.shard_units():
        # Each unit is a root of its own, which by default keeps its gathered weights after a forward pass.
        fully_shard(unit, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard_after_forward)


def drop_gathered(method: Method) -> None:
    """Let go of gathered weights, after the sharded ones were changed; else the next pass would use the old ones."""
    for unit in method.shard_units():
        if isinstance(unit, FSDPModule):
            unit.reshard()


def check_optimizer(strategy: Strategy, make_optimizer: Callable[..., Any]) -> None:
    """See that a strategy can shard what an optimizer keeps.

    Args:
        make_optimizer: a ``functools.partial`` of its class.

    Raises:
        UserError: it cannot: Muon needs whole matrices.
    """
    if isinstance(strategy, Zero2 | FullySharded) and getattr(make_optimizer, "func", None) is MuonWithAdamW:
        raise UserError(
            "Muon needs whole matrices, which zero2, zero2_offload and fsdp2 keep in parts; "
            "choose optimizer=adamw, or trainer=ddp"
        )


def average_of(trainer: Any) -> ZeroAverage | None:
    """The moving average that a strategy needs in place of the usual one, if any."""
    return ZeroAverage(trainer.strategy.optimizers[0]) if isinstance(trainer.strategy, Zero2) else None


def _require_deepspeed() -> None:
    try:
        import deepspeed  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"trainer=zero2 needs DeepSpeed, which cannot be imported ({error}); "
            "pip install 'imvideoedit[deepspeed]', or choose trainer=ddp or trainer=fsdp2"
        ) from error


@contextlib.contextmanager
def _tensors_only() -> Iterator[None]:
    """Within the block every ``torch.load`` refuses pickled code, also in DeepSpeed, which does not ask for that."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    before = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        with torch.serialization.safe_globals([LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address]):
            yield
    finally:
        if before is None:
            del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
        else:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = before
