"""Methods that work inside each block's self-attention: one processor a block."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from diffusers import WanTransformer3DModel
from torch import nn

from imvideoedit.flow.matching import FlowMatching
from imvideoedit.methods.base import Method
from imvideoedit.wan.context import AdaptedProcessor, attach, detach


class ProcessorMethod(Method):
    """Puts a processor on every block's self-attention; they are ``blocks``, in order.

    Subclasses implement :meth:`build_processor`.
    """

    def __init__(self, objective: FlowMatching | None = None) -> None:
        super().__init__(objective)
        self.blocks = nn.ModuleList()

    @abstractmethod
    def build_processor(self, index: int, block: nn.Module, dtype: torch.dtype) -> AdaptedProcessor:
        """Make the processor of one block, with its trained weights in ``dtype`` on the block's device."""

    def build(self, transformer: WanTransformer3DModel, dtype: torch.dtype) -> None:
        processors = [self.build_processor(index, block, dtype) for index, block in enumerate(transformer.blocks)]
        attach(transformer, processors)
        self.blocks = nn.ModuleList(processors)

    def remove(self, transformer: WanTransformer3DModel) -> None:
        detach(transformer)

    def apart(self) -> Sequence[nn.Module]:
        return [child for child in self.children() if child is not self.blocks]

    def shard_units(self) -> Sequence[nn.Module]:
        return [*self.blocks, *(child for child in self.apart() if list(child.parameters()))]
