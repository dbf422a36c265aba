"""What the source leaves for the target: the features of its blocks, and the purpose of a pass.

Shapes: B batch, L tokens, D width.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from imvideoedit.methods.keep_plan import KeepPlan


@dataclass
class SourceFeatures:
    """Features of a source, by the index of the block.

    Attributes:
        recorded: the pair (H, A_3d), normalised modulated input and output of the frozen self-attention, each
            ``[B, L, D]``; None in place of an A_3d that no processor reads.
        prepared: what processors computed from that pair, see ``TwoStreamProcessor.prepare``.
        sampling: the features serve many passes without gradients, which work on a few frames at a time; else each pass
            prepares anew, with gradients.
        keep: in sampling, where the features of each block are kept: the first pass puts what it prepares in place of
            the pair. None: each pass prepares anew.
        device: of the passes, where pairs come back to from the CPU's memory.
    """

    recorded: dict[int, list[Tensor | None]] = field(default_factory=dict)
    prepared: dict[int, list[Any]] = field(default_factory=dict)
    sampling: bool = False
    keep: KeepPlan | None = None
    device: torch.device = torch.device("cpu")

    def settle(self, index: int) -> None:
        """Move a recorded pair to the CPU's memory, if it is to be kept there."""
        if self.keep is None or self.keep.of_block(index) != "host":
            return
        self.recorded[index] = [each if each is None else _on_host(each) for each in self.recorded[index]]

    def pair(self, index: int) -> list[Tensor | None]:
        """A recorded pair on the device. From the CPU's memory it comes in the order of the device's other work."""
        found = self.recorded[index]
        if self.keep is None or self.keep.of_block(index) != "host":
            return found
        return [each if each is None else each.to(self.device, non_blocking=True) for each in found]


@dataclass(frozen=True)
class BlockCall:
    """What one block's processor is told of a pass: nothing here names the block, so that all compile as one.

    Attributes:
        mode: see :class:`EditCall`.
        recorded: the source's pair for this block, where ``mode`` is ``read`` and nothing is prepared.
        prepared: what was prepared of that pair.
        in_parts: whether long videos are edited a few frames at a time.
        out: an empty list for what the block hands back: the pair, or what it prepares.
        text: of an edit, what the block attends to in the text; empty until its first pass fills it.
    """

    mode: Literal["joint", "record", "read"]
    recorded: Any = None
    prepared: Any = None
    in_parts: bool = False
    out: Any = None
    text: Any = None


@dataclass
class EditCall:
    """What one forward pass of the transformer is for.

    Args:
        mode: ``joint``: the batch is ``[target ; source]``; ``record``: it is the source, whose features are written
            into ``features``; ``read``: it is the target, which reads them.
        texts: of an edit, by the index of the block, see :class:`BlockCall`: the same at all steps of one text.
    """

    mode: Literal["joint", "record", "read"]
    features: SourceFeatures = field(default_factory=SourceFeatures)
    texts: dict[int, list[Any]] | None = None

    def of_block(self, index: int) -> BlockCall:
        """What block ``index`` is told, just before it runs; what it hands back is put among the features."""
        features = self.features
        if self.mode == "joint":
            return BlockCall("joint")
        if self.mode == "record":
            if index > 0:
                features.settle(index - 1)
            return BlockCall("record", out=features.recorded.setdefault(index, []))
        text = None if self.texts is None else self.texts.setdefault(index, [])
        known = features.prepared.get(index)
        if known is not None:
            return BlockCall("read", None, known, features.sampling, text=text)
        pair = features.pair(index)
        if features.keep is None or features.keep.of_block(index) != "prepared":
            return BlockCall("read", pair, None, features.sampling, text=text)
        del features.recorded[index]
        out = features.prepared[index] = []
        return BlockCall("read", pair, None, features.sampling, out, text)


def _on_host(tensor: Tensor) -> Tensor:
    """A copy in the CPU's memory, locked where a GPU can then copy from it by itself."""
    if tensor.device.type == "cpu":
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda").copy_(tensor)
