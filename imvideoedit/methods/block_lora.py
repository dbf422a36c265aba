"""Low-rank deltas on the frozen linear maps of a transformer's blocks, at work in a method's own passes alone.

A delta is added by a hook, so that the frozen weights keep their names and places. Blocks know a method's pass by the
rotary pair they are given, a :class:`MethodRotary`: an argument, so that it holds in a checkpointed block that is
computed again, too.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from imvideoedit.layers.low_rank import LowRank
from imvideoedit.wan.token_split import RotaryPair, of_tokens

SELF_ATTENTION, CROSS_ATTENTION = (
    tuple(f"{attention}.{part}" for part in ("to_q", "to_k", "to_v", "to_out.0")) for attention in ("attn1", "attn2")
)
ATTENTION = SELF_ATTENTION + CROSS_ATTENTION
FEED_FORWARD = ("ffn.net.0.proj", "ffn.net.2")


class MethodRotary(RotaryPair):
    """``(cos, sin)`` of a pass that a method's deltas belong to.

    Attributes:
        more: a further pair of the method's, or None.
        heads_N: true for the heads that the further pair is for.
    """

    more: Any
    heads_N: Tensor | None

    @classmethod
    def of(cls, tables: tuple[Tensor, Tensor], more: Any = None, heads_N: Tensor | None = None) -> "MethodRotary":
        rotary = cls(tables)
        rotary.more, rotary.heads_N = more, heads_N
        return rotary

    def of_tokens(self, own: slice) -> Self:
        """The pairs for these tokens alone."""
        part = super().of_tokens(own)
        part.more, part.heads_N = None if self.more is None else of_tokens(self.more, own), self.heads_N
        return part

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "MethodRotary":
        """With its tables on a device, as diffusers' offloading moves arguments."""
        tables = tuple(table.to(device, non_blocking=non_blocking) for table in self)
        return MethodRotary.of(tables, self.more, self.heads_N)


class BlockLora(nn.Module):
    """The deltas of one block.

    Args:
        block: a ``WanTransformerBlock``.
        maps: names of its linear maps, such as ``ATTENTION``.
        rank: at least 1.
        dtype: of the trained weights.
    """

    handles: list[Any]
    at_work: bool

    def __init__(self, block: nn.Module, maps: Sequence[str], rank: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.deltas = nn.ModuleDict()
        self.__dict__["handles"], self.__dict__["at_work"] = [], False
        for name in maps:
            linear: Any = block.get_submodule(name)
            device = linear.weight.device
            self.deltas[name.replace(".", "_")] = LowRank(
                linear.in_features, linear.out_features, rank, device=device, dtype=dtype
            )
            self.handles.append(linear.register_forward_hook(self._adder(name.replace(".", "_"))))
        self.handles.append(block.register_forward_pre_hook(self._enter, with_kwargs=True))
        self.handles.append(block.register_forward_hook(self._leave, always_call=True))

    def remove(self) -> None:
        """Take the hooks out of the block."""
        while self.handles:
            self.handles.pop().remove()

    def _adder(self, name: str) -> Any:
        def add(linear: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if not self.at_work:
                return output
            delta: Any = self.deltas[name]
            x = args[0] if _casts(args[0].device.type) else args[0].to(delta.down.weight.dtype)
            return output + delta(x).to(output.dtype)

        return add

    def _enter(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.__dict__["at_work"] = any(isinstance(each, MethodRotary) for each in (*args, *kwargs.values()))

    def _leave(self, block: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.__dict__["at_work"] = False


def _casts(device: str) -> bool:
    """Whether autocast chooses the type of products there; counts on the meta device have none."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def lora_of(transformer: WanTransformer3DModel, maps: Sequence[str], rank: int, dtype: torch.dtype) -> nn.ModuleList:
    """A :class:`BlockLora` on each block of a transformer."""
    return nn.ModuleList(BlockLora(block, maps, rank, dtype) for block in transformer.blocks)


def units_of(lora: nn.ModuleList) -> list[nn.Module]:
    """The deltas of :func:`lora_of`, for ``Method.shard_units``."""
    blocks: list[Any] = list(lora)
    return [delta for block in blocks for delta in block.deltas.values()]


def remove_lora(lora: nn.ModuleList) -> None:
    """Take the deltas of :func:`lora_of` out of their transformer."""
    blocks: list[Any] = list(lora)
    for block in blocks:
        block.remove()
