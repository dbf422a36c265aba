"""All losses of a training batch as one function, which may be compiled as a whole.

Shapes: B batch, C latent channels, F latent frames.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from diffusers import WanTransformer3DModel
from lightning import Trainer
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import EditBatch
from imvideoedit.flow.matching import PathPoint
from imvideoedit.methods.base import Method
from imvideoedit.training.strategies import FullySharded
from imvideoedit.wan.forward import is_compiled, tapped
from imvideoedit.wan.kernels import can_compile, compile_blocks, release_blocks

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
        blocks: compile the blocks alone; ``auto`` on a GPU where that can be done.
    """

    def __init__(
        self,
        transformer: WanTransformer3DModel,
        method: Method,
        auxiliary: Any,
        compiled: bool = False,
        blocks: bool | Literal["auto"] = False,
    ) -> None:
        self.transformer, self.method, self.auxiliary, self.compiled = transformer, method, auxiliary, compiled
        self.blocks = blocks
        self.graphs = False
        self._shapes: set[torch.Size] = set()
        self._run: Any = None

    def place_for(self, trainer: Trainer, device: torch.device) -> None:
        """:meth:`place` for a trainer's run."""
        sharded = isinstance(trainer.strategy, FullySharded)
        self.place(device, trainer.accumulate_grad_batches, str(trainer.precision), sharded)

    def place(self, device: torch.device, accumulated: int, precision: str, sharded: bool = False) -> None:
        """Compile the blocks, and decide on CUDA graphs, before the first batch.

        Args:
            accumulated: batches whose gradients add up in an optimizer step.
            precision: Lightning's name of it.
            sharded: by FSDP2, whose hooks break the graphs of blocks.

        Raises:
            UserError: compiled whole in bfloat16 on a CPU, where torch 2.13's vectorised code makes every loss NaN.
        """
        if self.compiled:
            check_whole_step(device, precision, "task.compile=step", "trainer.precision=32-true")
        self.graphs = device.type == "cuda" and accumulated == 1
        if self.blocks is True or (self.blocks == "auto" and not sharded and can_compile(device)):
            compile_blocks(self.transformer, self.method.compile_units(), whole=not sharded)

    def __call__(
        self, edits: EditBatch, point: PathPoint, sigma_B: Tensor, weights: Tensor | None = None
    ) -> tuple[Losses, Losses]:
        """Losses of the method and readings of the auxiliary module by name, ``[B]`` each.

        Args: see ``Method.losses_at``.
        """
        if not self.compiled:
            return self._in_blocks(edits, point, sigma_B, weights)
        if self._run is None:
            self._run = whole_step(self._losses, self.graphs)
        # Blocks that are recomputed write the same features into the same places again, or need not.
        with torch._dynamo.config.patch(skip_fwd_side_effects_in_bwd_under_checkpoint=True):
            # Names of pairs differ from batch to batch, and the compiler would make a graph for each.
            losses, readings = self._run(replace(edits, ids=()), point, sigma_B, weights)
        return _copied(losses), _copied(readings)

    def _in_blocks(self, edits: EditBatch, point: PathPoint, sigma_B: Tensor, weights: Tensor | None) -> Any:
        """Losses by blocks that may be compiled; where nobody asked for that and it fails, they no longer are."""
        try:
            return self._losses(edits, point, sigma_B, weights)
        except torch._dynamo.exc.TorchDynamoException as error:
            if self.blocks != "auto":
                raise
            say(f"this cannot be compiled here and goes on without: {str(error).splitlines()[0]}")
            release_blocks(self.transformer, self.method.compile_units())
            return self._losses(edits, point, sigma_B, weights)

    @contextlib.contextmanager
    def announced(self, edits: EditBatch) -> Iterator[None]:
        """Around the forward pass of a batch: where it makes compiled code, says so, and how long that took."""
        shape = edits.source_BCFHW.shape
        if shape in self._shapes or not (self.compiled or is_compiled(self.transformer)):
            yield
            return
        self._shapes.add(shape)
        size = f"{shape[0]} x {shape[2]} x {shape[3]} x {shape[4]} latents"
        say(f"compiling for batches of {size}: a minute or more, once for each shape (task.compile=false: never)")
        began = time.monotonic()
        yield
        say(f"compiled, with the first batch, in {time.monotonic() - began:.0f} s")

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


@rank_zero_only
def say(line: str) -> None:
    """Print a line, in one of the processes."""
    print(line, flush=True)


def _copied(losses: Losses) -> Losses:
    """A replay overwrites its results, and logs keep them."""
    return {name: loss_B.clone() for name, loss_B in losses.items()}
