"""What the source leaves for the target: the features of its blocks, and the purpose of a pass.

Shapes: B batch, L tokens, D width.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor


@dataclass
class SourceFeatures:
    """Features of a source, by the index of the block.

    Attributes:
        recorded: the pair (H, A_3d), normalised modulated input and output of the frozen self-attention, each
            ``[B, L, D]``; None in place of an A_3d that no processor reads.
        prepared: what processors computed from that pair, see ``TwoStreamProcessor.prepare``.
        sampling: the features serve many passes without gradients, which work on a few frames at a time; else each pass
            prepares anew, with gradients.
        keep_prepared: in sampling, the first pass puts what it prepares in place of the pair.
        nbytes, prepared_nbytes: size of all pairs, and of all that processors prepare of them.
    """

    recorded: dict[int, list[Tensor | None]] = field(default_factory=dict)
    prepared: dict[int, list[Any]] = field(default_factory=dict)
    sampling: bool = False
    keep_prepared: bool = False
    nbytes: int = 0
    prepared_nbytes: int = 0


@dataclass(frozen=True)
class BlockCall:
    """What one block's processor is told of a pass: nothing here names the block, so that all compile as one.

    Attributes:
        mode: see :class:`EditCall`.
        recorded: the source's pair for this block, where ``mode`` is ``read`` and nothing is prepared.
        prepared: what was prepared of that pair.
        in_parts: whether long videos are edited a few frames at a time.
        out: an empty list for what the block hands back: the pair, or what it prepares.
    """

    mode: Literal["joint", "record", "read"]
    recorded: Any = None
    prepared: Any = None
    in_parts: bool = False
    out: Any = None


@dataclass
class EditCall:
    """What one forward pass of the transformer is for.

    Args:
        mode: ``joint``: the batch is ``[target ; source]``; ``record``: it is the source, whose features are written
            into ``features``; ``read``: it is the target, which reads them.
    """

    mode: Literal["joint", "record", "read"]
    features: SourceFeatures = field(default_factory=SourceFeatures)

    def of_block(self, index: int) -> BlockCall:
        """What block ``index`` is told, just before it runs; what it hands back is put among the features."""
        features = self.features
        if self.mode == "joint":
            return BlockCall("joint")
        if self.mode == "record":
            return BlockCall("record", out=features.recorded.setdefault(index, []))
        known = features.prepared.get(index)
        if known is not None or not features.keep_prepared:
            recorded = features.recorded[index] if known is None else None
            return BlockCall("read", recorded, known, features.sampling)
        out = features.prepared[index] = []
        return BlockCall("read", features.recorded.pop(index), None, features.sampling, out)
