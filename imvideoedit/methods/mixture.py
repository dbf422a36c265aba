"""Several trained adapters at once: a weighted sum of what each adds to a block's attention.

    H_out = A_3d + Σ_i w_i (H_out,i - A_3d),    v' = v + Σ_i w_i (v'_i - v)

Shapes: B batch, L tokens, D width; C channels, F frames, H W of latents.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from imvideoedit.common.errors import UserError
from imvideoedit.methods.adapter_file import load_adapter
from imvideoedit.methods.adapter_header import read_header
from imvideoedit.methods.base import Method
from imvideoedit.methods.known import METHODS
from imvideoedit.methods.two_stream import TwoStreamMethod
from imvideoedit.methods.two_stream_processor import TwoStreamProcessor
from imvideoedit.wan.backbone import PARTS
from imvideoedit.wan.context import TokenContext


class MixtureProcessor(TwoStreamProcessor):
    """The adapters of one block."""

    def __init__(self, index: int, parts: list[Any], weights: list[float]) -> None:
        super().__init__(index, "aligned")  # each part has its own position
        self.positions = tuple({part.position for part in parts})
        self.parts = nn.ModuleList(parts)
        self.weights = weights
        self.reads_a_3d = any(part.reads_a_3d for part in parts)
        self.prepared_width = sum(part.prepared_width for part in parts)

    def prepare(self, h_BLD: Tensor, a_3d_BLD: Tensor | None, context: TokenContext) -> Any:
        own: list[Any] = list(self.parts)
        return [part.prepare(h_BLD, a_3d_BLD, context) for part in own]

    def attend_text(self, text_BTD: Tensor) -> Any:
        own: list[Any] = list(self.parts)
        return [part.attend_text(text_BTD) for part in own]

    def edit(self, h_BLD: Tensor, a_3d_BLD: Tensor, context: TokenContext, source: Any, text: Any = None) -> Tensor:
        out_BLD = a_3d_BLD
        nothing = [None] * len(self.parts)
        each = zip(self.parts, self.weights, source or nothing, text or nothing, strict=True)
        for part, weight, own_source, own_text in each:
            own: Any = part
            out_BLD = out_BLD + weight * (own.edit(h_BLD, a_3d_BLD, context, own_source, own_text) - a_3d_BLD)
        return out_BLD


class Mixture(TwoStreamMethod):
    """Adapters that are installed one after the other, and then all together.

    Args:
        weights: of each adapter by its method; 1 for all of what it adds. The methods are installed in one and the same
            transformer, and detached from it (see ``Method.detach``).

    Raises:
        UserError: some want the source stream cached and others joint.
    """

    name = "mixture"

    def __init__(self, weights: Mapping[TwoStreamMethod, float]) -> None:
        streams = {method.source_stream for method in weights}
        if len(streams) > 1:
            raise UserError("adapters with a joint and with a cached source stream cannot be mixed; take one kind")
        super().__init__(source_stream=streams.pop())
        self._parts = list(weights.items())
        # Declared by the class elsewhere; here by the adapters.
        self.__dict__["inputs"] = tuple({each.name: each for method in weights for each in method.inputs}.values())

    def config(self) -> dict[str, Any]:
        raise NotImplementedError("a mixture is not saved; its adapters are")

    def build_processor(self, index: int, block: nn.Module, dtype: torch.dtype) -> MixtureProcessor:
        processors = [method.blocks[index] for method, _ in self._parts]
        return MixtureProcessor(index, processors, [weight for _, weight in self._parts])

    def build(self, transformer: WanTransformer3DModel, dtype: torch.dtype) -> None:
        super().build(transformer, dtype)
        self.heads = nn.ModuleList(child for method, _ in self._parts for child in method.apart())

    def finish(
        self, v_BCFHW: Tensor, hidden_BLD: Tensor, x_BCFHW: Tensor, sigma_B: Tensor, source_BCFHW: Tensor
    ) -> Tensor:
        out_BCFHW = v_BCFHW
        for method, weight in self._parts:
            own_BCFHW = method.finish(v_BCFHW, hidden_BLD, x_BCFHW, sigma_B, source_BCFHW)
            out_BCFHW = out_BCFHW + weight * (own_BCFHW - v_BCFHW)
        return out_BCFHW


def parts_for(files: Iterable[Path]) -> tuple[str, ...]:
    """The backbone's parts that an edit by these adapters needs: no text encoder where they have readers of their own.

    Raises:
        UserError: a file is missing or damaged.
    """
    kinds = (METHODS.get(read_header(path).method) for path in files)
    return ("vae",) if all(kind is not None and kind.own_reader for kind in kinds) else PARTS


def load_adapters(
    weights: Mapping[Path, float],
    transformer: WanTransformer3DModel,
    backbone_hash: str | None = None,
    backbone_name: str | None = None,
) -> Method:
    """Install one adapter, or several as a mixture, frozen, ready to sample.

    Args:
        weights: of each file; 1 for all of what it adds.
        backbone_hash, backbone_name: as in :func:`imvideoedit.methods.adapter_file.load_adapter`.

    Raises:
        UserError: a file cannot be loaded, or several cannot be mixed.
    """
    methods: dict[Any, float] = {}
    for path, weight in weights.items():
        method = load_adapter(path, transformer, backbone_hash=backbone_hash, backbone_name=backbone_name)
        if len(weights) == 1 and weight == 1:
            return method
        if not isinstance(method, TwoStreamMethod):
            method.uninstall()
            raise UserError(f"{path} is of method {method.name}, which has no weight and no mixture; give it alone")
        method.detach()
        methods[method] = weight
    mixture = Mixture(methods)
    mixture.install(transformer)
    return mixture.requires_grad_(False).eval()
