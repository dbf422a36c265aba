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

    recorded: dict[int, tuple[Tensor, Tensor | None]] = field(default_factory=dict)
    prepared: dict[int, Any] = field(default_factory=dict)
    sampling: bool = False
    keep_prepared: bool = False
    nbytes: int = 0
    prepared_nbytes: int = 0


@dataclass
class EditCall:
    """What one forward pass of the transformer is for.

    Args:
        mode: ``joint``: the batch is ``[target ; source]``; ``record``: it is the source, whose features are written
            into ``features``; ``read``: it is the target, which reads them.
    """

    mode: Literal["joint", "record", "read"]
    features: SourceFeatures = field(default_factory=SourceFeatures)
