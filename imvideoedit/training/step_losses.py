"""All losses of a training batch as one function, which may be compiled as a whole.

Shapes: B batch, C latent channels, F latent frames.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import EditBatch
from imvideoedit.flow.matching import PathPoint
from imvideoedit.methods.base import Method
from imvideoedit.wan.forward import tapped

Losses = dict[str, Tensor]


class StepLosses:
    """The method's losses and those of auxiliary readouts.

    Compiled, source pass, target pass and losses are one graph for each shape, without a break, and backward another.
    On a GPU both are replayed as CUDA graphs, which takes the time of thousands of launches away; with gradients that
    are accumulated over several batches they are not, since a replay overwrites the gradients of the one before.
    Gates are not logged, as the compiler takes no hooks.

    Args:
        auxiliary: such as ``ContentReadouts``, or None.
        compiled: compile it; the first step of each shape takes a minute or more.
    """

    def __init__(
        self, transformer: WanTransformer3DModel, method: Method, auxiliary: Any, compiled: bool = False
    ) -> None:
        self.transformer, self.method, self.auxiliary, self.compiled = transformer, method, auxiliary, compiled
        self.graphs = False
        self._run: Any = None

    def place(self, device: torch.device, accumulated: int, precision: str) -> None:
        """Decide on CUDA graphs, before the first batch.

        Args:
            accumulated: batches whose gradients add up in an optimizer step.
            precision: Lightning's name of it.

        Raises:
            UserError: compiled in bfloat16 on a CPU, where torch 2.13's vectorised code makes every loss NaN.
        """
        if self.compiled:
            check_whole_step(device, precision, "task.compile=step", "trainer.precision=32-true")
        self.graphs = device.type == "cuda" and accumulated == 1

    def __call__(
        self, edits: EditBatch, point: PathPoint, sigma_B: Tensor, weights: Tensor | None = None
    ) -> tuple[Losses, Losses]:
        """Losses of the method and readings of the auxiliary module by name, ``[B]`` each.

        Args: see ``Method.losses_at``.
        """
        if not self.compiled:
            return self._losses(edits, point, sigma_B, weights)
        if self._run is None:
            self._run = whole_step(self._losses, self.graphs)
        # Blocks that are recomputed write the same features into the same places again, or need not.
        with torch._dynamo.config.patch(skip_fwd_side_effects_in_bwd_under_checkpoint=True):
            # Names of pairs differ from batch to batch, and the compiler would make a graph for each.
            losses, readings = self._run(replace(edits, ids=()), point, sigma_B, weights)
        return _copied(losses), _copied(readings)

    def _losses(
        self, edits: EditBatch, point: PathPoint, sigma_B: Tensor, weights: Tensor | None
    ) -> tuple[Losses, Losses]:
        read = self.auxiliary is not None and not edits.labels.keys() <= self.method.label_shapes().keys()
        with tapped(self.transformer, self.auxiliary.taps if read else ()) as outputs:
            losses = self.method.losses_at(self.transformer, edits, point, sigma_B, weights)
        return losses, self.auxiliary.losses(edits.labels, outputs) if read else {}


def check_whole_step(device: torch.device, precision: str, option: str, remedy: str) -> None:
    """See that a step compiled as a whole is right here.

    Args:
        precision: Lightning's name of it.
        option: that asks for it, and ``remedy``: what to set instead, for the error.

    Raises:
        UserError: in bfloat16 on a CPU, where torch 2.13's vectorised code makes every loss NaN.
    """
    if device.type == "cpu" and precision == "bf16-mixed":
        raise UserError(f"{option} is wrong in bfloat16 on a CPU; add {remedy}")


def whole_step(losses: Callable[..., Any], graphs: bool) -> Callable[..., Any]:
    """``losses`` compiled as one graph for each shape, without a break.

    Args:
        graphs: replay it as a CUDA graph; the next call overwrites its results.
    """
    compiled = torch.compile(losses, fullgraph=True, dynamic=False, mode="reduce-overhead" if graphs else None)

    def run(*args: Any) -> Any:
        if graphs:
            torch.compiler.cudagraph_mark_step_begin()
        return compiled(*args)

    return run


def _copied(losses: Losses) -> Losses:
    """A replay overwrites its results, and logs keep them."""
    return {name: loss_B.clone() for name, loss_B in losses.items()}
