"""Methods that train the transformer itself, or low-rank deltas on it in its place."""

from collections.abc import Sequence

import torch
from diffusers import WanTransformer3DModel
from torch import nn

from imvideoedit.methods.base import Method
from imvideoedit.methods.block_lora import lora_of, remove_lora, units_of
from imvideoedit.wan.own_weights import own_weights


class BackboneMethod(Method):
    """Base of methods with one pass of the transformer whose weights are trained: all, or low-rank deltas on some."""

    def build_weights(
        self, transformer: WanTransformer3DModel, maps: Sequence[str], rank: int, dtype: torch.dtype
    ) -> None:
        """Register what is trained of the transformer: all of it where ``trains_backbone``, else deltas.

        Args:
            maps: names of a block's linear maps that have deltas.
            rank: of the deltas.
        """
        if self.trains_backbone:
            self.backbone = own_weights(transformer, dtype)
        else:
            self.lora = lora_of(transformer, maps, rank, dtype)

    def remove(self, transformer: WanTransformer3DModel) -> None:
        if not self.trains_backbone:
            remove_lora(self.lora)

    def apart(self) -> Sequence[nn.Module]:
        return [child for name, child in self.named_children() if name != "backbone"]

    def shard_units(self) -> Sequence[nn.Module]:
        deltas = [] if self.trains_backbone else units_of(self.lora)
        return [*deltas, *(child for name, child in self.named_children() if name != "lora")]

    def compile_units(self) -> Sequence[nn.Module]:
        return [unit for unit in self.shard_units() if unit is not self._modules.get("backbone")]
