"""Frozen blocks on the device one by one while a method trains, with the inputs of checkpointed blocks on the CPU.

A transformer's blocks are run again in the backward pass, as by gradient checkpointing, but between its two turns
neither a block's weights nor its input stay on the device. While one block runs, the next one's weights (in the
backward pass the one's before it, with its input) are copied beside it, from page-locked memory on a stream of their
own. So two blocks are on the device at a time.

The values are those of checkpointing, bit for bit. Blocks run only within passes that take gradients.
"""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

HOST = torch.device("cpu")


@contextlib.contextmanager
def offloaded(
    transformer: WanTransformer3DModel, device: torch.device, host: torch.device = HOST
) -> Iterator["BlockOffload"]:
    """Inside, the transformer's blocks are offloaded; behind it they are on the host, as any others are.

    Args:
        transformer: with its method installed; its other parts are placed by the caller.
        device: of the computation.
        host: where weights and inputs wait.
    """
    offload = BlockOffload(transformer, device, host)
    before = transformer._gradient_checkpointing_func, transformer.gradient_checkpointing
    transformer.enable_gradient_checkpointing(offload.run)
    try:
        yield offload
    finally:
        transformer._gradient_checkpointing_func, transformer.gradient_checkpointing = before
        offload.restore()


class _Waiting:
    """A block's input on the host, and the one before it in the pass."""

    def __init__(self, input_BLD: Tensor, before: "_Waiting | None") -> None:
        self.host_BLD: Tensor | None = input_BLD
        self.before = before
        self.coming: Tensor | None = None  # its copy on the device, once that has begun, which ends at this point
        self.arrival: Any = None


class BlockOffload:
    """Moves the blocks of a transformer; see the module.

    Attributes:
        resident: indices of the blocks whose weights are on the device, or on their way to it.
    """

    def __init__(self, transformer: WanTransformer3DModel, device: torch.device, host: torch.device = HOST) -> None:
        self._device, self._host = device, host
        self._blocks: list[nn.Module] = list(transformer.blocks)
        self._places = {block: place for place, block in enumerate(self._blocks)}
        self._frozen = [
            [each for each in (*block.parameters(), *block.buffers()) if not each.requires_grad]
            for block in self._blocks
        ]
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._weights = [[self._taken_off(each) for each in tensors] for tensors in self._frozen]
        self._arrivals: dict[int, Any] = {}
        self._anchor = torch.zeros((), device=device, requires_grad=True)
        self._last: _Waiting | None = None

    @property
    def resident(self) -> set[int]:
        return set(self._arrivals)

    def run(self, block: nn.Module, hidden_BLD: Tensor, *rest: Any) -> Tensor:
        """A block's output, as ``transformer._gradient_checkpointing_func`` gives it.

        Raises:
            ValueError: another input than ``hidden_BLD`` has a gradient, which would be lost.
        """
        if any(isinstance(each, Tensor) and each.requires_grad for each in rest):
            raise ValueError("of an offloaded block only the tokens have gradients")
        return _Turns.apply(self, block, self._anchor, hidden_BLD, *rest)

    def restore(self) -> None:
        """Put the weights back into the blocks, on the host."""
        for tensors, kept in zip(self._frozen, self._weights, strict=True):
            for tensor, weight in zip(tensors, kept, strict=True):
                tensor.data = weight
        self._arrivals.clear()
        self._last = None

    # Weights.

    def place_of(self, block: nn.Module) -> int:
        """The index of a block."""
        return self._places[block]

    def bring(self, place: int, step: int) -> None:
        """Have a block's weights on the device, with the next one's on their way, and no other's.

        Args:
            step: 1 in the forward pass, -1 in the backward pass.
        """
        wanted = [each for each in (place, place + step) if 0 <= each < len(self._blocks)]
        for other in self.resident - set(wanted):
            for tensor in self._frozen[other]:
                tensor.data = tensor.data.new_empty(0)
            del self._arrivals[other]
        for each in wanted:
            if each not in self._arrivals:
                with self._beside() as copy:
                    for tensor, weight in zip(self._frozen[each], self._weights[each], strict=True):
                        tensor.data = copy(weight, self._device)
                self._arrivals[each] = self._mark()
        self._await(self._arrivals[place])

    def _taken_off(self, tensor: Tensor) -> Tensor:
        """A block's tensor on the host; what is left in its place is empty."""
        weight = tensor.data.to(self._host)
        if self._stream is not None:
            weight = weight.pin_memory()
        tensor.data = weight.new_empty(0, device=self._device)
        return weight

    # Inputs.

    def keep(self, hidden_BLD: Tensor, place: int) -> _Waiting:
        """Copy a block's input to the host."""
        with self._beside() as copy:
            host_BLD = copy(hidden_BLD.detach(), self._host)
        if self._stream is not None:
            hidden_BLD.record_stream(self._stream)  # its memory is taken again only once it is copied
        self._last = _Waiting(host_BLD, self._last if place else None)
        return self._last

    def give_back(self, waiting: _Waiting) -> Tensor:
        """A block's input on the device; the one's before it sets out."""
        self._send(waiting)
        if waiting.before is not None:
            self._send(waiting.before)
        self._await(waiting.arrival)
        input_BLD = waiting.coming
        waiting.host_BLD = waiting.coming = waiting.before = None
        assert input_BLD is not None
        return input_BLD

    def _send(self, waiting: _Waiting) -> None:
        if waiting.coming is None and waiting.host_BLD is not None:
            with self._beside() as copy:
                waiting.coming = copy(waiting.host_BLD, self._device)
            waiting.arrival = self._mark()

    # Copies beside the computation.

    @contextlib.contextmanager
    def _beside(self) -> Iterator[Any]:
        """Inside, the given function copies a tensor to a device, after what is computed by now."""
        if self._stream is None:
            yield lambda tensor, device: tensor.to(device, copy=True)
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        yield self._copied_beside

    def _copied_beside(self, tensor: Tensor, device: torch.device) -> Tensor:
        # Made on the stream that computes, whose memory is reused in the order of its work.
        there = torch.empty_like(tensor, device=device, pin_memory=device.type == "cpu")
        with torch.cuda.stream(self._stream):
            there.copy_(tensor, non_blocking=True)
        return there

    def _mark(self) -> Any:
        """A point in the copies so far."""
        return None if self._stream is None else self._stream.record_event()

    def _await(self, mark: Any) -> None:
        if mark is not None:
            torch.cuda.current_stream(self._device).wait_event(mark)


class _Turns(torch.autograd.Function):
    """A block's turn in the forward pass, and its second one in the backward pass."""

    @staticmethod
    def forward(ctx: Any, offload: BlockOffload, block: nn.Module, anchor: Tensor, hidden_BLD: Tensor, *rest: Any):
        """The output. ``anchor`` has a gradient, so that the first block's output has one, too."""
        place = offload.place_of(block)
        ctx.offload, ctx.block, ctx.place, ctx.rest, ctx.mixed = offload, block, place, rest, _autocast(hidden_BLD)
        offload.bring(place, 1)
        ctx.waiting = offload.keep(hidden_BLD, place)
        return block(hidden_BLD, *rest)

    @staticmethod
    def backward(ctx: Any, gradient_BLD: Tensor) -> Any:
        """The input's gradient; trained weights add to theirs."""
        ctx.offload.bring(ctx.place, -1)
        hidden_BLD = ctx.offload.give_back(ctx.waiting).requires_grad_(ctx.needs_input_grad[3])
        with torch.enable_grad(), ctx.mixed():
            output_BLD = ctx.block(hidden_BLD, *ctx.rest)
        if output_BLD.requires_grad:
            torch.autograd.backward(output_BLD, gradient_BLD)
        return None, None, None, hidden_BLD.grad, *(None for _ in ctx.rest)


def _autocast(like: Tensor) -> Any:
    """Makes autocast's state of now, for a later pass."""
    kind = like.device.type
    state = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind), torch.is_autocast_cache_enabled()
    return partial(torch.autocast, kind, *state)
