"""Counted costs of computations of a whole Wan model, from two small ones, as they are linear in the blocks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import clip_grad_norm_

from imvideoedit.benchmark.fused import Scheduled
from imvideoedit.benchmark.launches import Count, counted
from imvideoedit.edit_batch import EditBatch
from imvideoedit.methods.base import Method
from imvideoedit.training.averaging import MovingAverage
from imvideoedit.training.block_offload import HOST, BlockOffload
from imvideoedit.training.flops import FEW, META, MORE, Pairs, loss_of, make_fake, method_like, random_transformer
from imvideoedit.training.optimizers import adamw
from imvideoedit.wan.bases import WAN_1_3B
from imvideoedit.wan.kernels import compile_blocks

HALF = torch.bfloat16


@dataclass(frozen=True)
class Step:
    """How an optimizer step is made.

    Attributes:
        config: of the transformer.
        offload: the blocks are on the device one by one.
        backend: that compiles the blocks, if they are.
    """

    config: Mapping[str, Any] | None = None
    offload: bool = False
    backend: Scheduled | None = None


def step_count(method: Method, pairs: Pairs, how: Step | None = None) -> Count:
    """Forward, recomputation and backward of a batch under autocast, clipping, AdamW and the moving average.

    Args:
        how: else of Wan 1.3B, neither offloaded nor compiled.
    """
    how = how or Step()

    def step(transformer: Any, method: Method, batch: EditBatch) -> Callable[[], Any]:
        run = BlockOffload(transformer, HOST, META).run if how.offload else None
        transformer.enable_gradient_checkpointing(run)
        if how.backend is not None:
            compile_blocks(transformer, backend=how.backend)
        weights = [p for p in method.parameters() if p.requires_grad]
        optimizer, average = adamw(weights, lr=1e-5), MovingAverage(weights)

        def step_once() -> None:
            with torch.autocast("cpu", HALF, cache_enabled=False):
                loss = loss_of(transformer, method, batch)
            loss.backward()
            clip_grad_norm_(weights, 1.0, foreach=True)  # torch's choice on a GPU
            optimizer.step()
            optimizer.zero_grad()
            average.update(0.999)

        return step_once

    return of_all_blocks(method, pairs, torch.float32, step, how.backend, how.config)


def of_all_blocks(
    method: Method,
    pairs: Pairs,
    weights: torch.dtype,
    compute_of: Callable[..., Callable[[], Any]],
    backend: Scheduled | None = None,
    config: Mapping[str, Any] | None = None,
) -> Count:
    """Costs of a computation of all blocks.

    Args:
        weights: dtype of the trained weights.
        compute_of: makes the computation from a transformer, a method in it, and a batch.
        config: of the transformer; Wan 1.3B's if None.
    """
    sizes = dict(config or WAN_1_3B)

    def count(layers: int) -> Count:
        with torch.device("meta"):
            transformer = random_transformer({**sizes, "num_layers": layers}, HALF)
        like = method_like(method, layers)
        like.install(transformer, weights)
        with FakeTensorMode():
            for part in (transformer, like):
                make_fake(part)
            batch = pairs.batch_of(transformer.config, like, "cpu", HALF)
            return counted(compute_of(transformer, like, batch), backend)

    few, more = count(FEW), count(MORE)
    return few + (more + few * -1) * ((sizes["num_layers"] - FEW) / (MORE - FEW))
