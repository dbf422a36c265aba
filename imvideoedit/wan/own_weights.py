"""A transformer's own weights as a module of a method's, for methods that train them."""

import torch
from diffusers import WanTransformer3DModel
from torch import nn

from imvideoedit.wan.quantized import refuse_quantized


class OwnWeights(nn.Module):
    """A transformer's own weights by their own names, for a method that trains them; its rotary tables are none."""

    def __init__(self, transformer: WanTransformer3DModel) -> None:
        super().__init__()
        for name, part in transformer.named_children():
            if part is not transformer.rope:
                self.add_module(name, part)
        for name, parameter in transformer.named_parameters(recurse=False):
            self.register_parameter(name, parameter)


def own_weights(transformer: WanTransformer3DModel, dtype: torch.dtype) -> OwnWeights:
    """The transformer's own weights to train, in ``dtype`` or, where they are wider, in their own.

    Raises:
        UserError: they are quantised.
    """
    refuse_quantized(transformer, "this method trains")
    for parameter in transformer.parameters():
        parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, dtype))
    return OwnWeights(transformer).requires_grad_(True)
