"""The adapter of one block in methods that run a source and a target stream: what it does in which pass.

Shapes: B batch, L tokens, T text tokens, D width.
"""

import itertools
from abc import abstractmethod
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

from imvideoedit.layers.attention import KeysValues
from imvideoedit.layers.rope import Position
from imvideoedit.layers.spatial_difference import SpatialDifference
from imvideoedit.methods.source_features import BlockCall
from imvideoedit.wan.context import AdaptedProcessor, TokenContext

PART_TOKENS = 8000  # processed at a time in sampling, at least a frame


class TwoStreamProcessor(AdaptedProcessor):
    """Records the source's features in its own pass; in the other modes :meth:`edit` does the method's work."""

    reads_a_3d = False  # of the source, besides its H: twice as much to keep
    prepared_width = 0  # values a token in the result of :meth:`prepare`

    def __init__(self, index: int, position: Position) -> None:
        super().__init__(index)
        self.position = position
        self.positions = (position,)

    @abstractmethod
    def edit(self, h_BLD: Tensor, a_3d_BLD: Tensor, context: TokenContext, source: Any, text: Any = None) -> Tensor:
        """Return what replaces A_3d.

        Args:
            h_BLD, a_3d_BLD: H and A_3d; of both streams stacked when ``source`` is None, else the target's.
            source: result of :meth:`prepare` for the source, or None.
            text: result of :meth:`attend_text`, or None for the context's text.
        """

    @abstractmethod
    def prepare(self, h_BLD: Tensor, a_3d_BLD: Tensor | None, context: TokenContext) -> Any:
        """Compute from the source's recorded H and A_3d all that :meth:`edit` needs of them: the same at any step.

        Returns:
            A tuple or list of tensors ``[B, L, ...]``, of such, and of None.
        """

    def attend_text(self, text_BTD: Tensor) -> Any:
        """What :meth:`edit` attends to in a text, such as keys and values: the same at any step.

        Returns:
            As :meth:`prepare`, of tensors ``[B, T, ...]``; empty where the text is not read.
        """
        return ()

    def adapt(self, h_BLD: Tensor, a_3d_BLD: Tensor, context: TokenContext) -> Tensor:
        call: BlockCall = context.call
        if call.mode == "joint":
            one = self.attend_text(context.text_BTD.chunk(2)[0])  # both streams have one text
            return self.edit(h_BLD, a_3d_BLD, context, None, tree_map_only(Tensor, _twice, one))
        if call.mode == "record":
            call.out.extend((h_BLD, a_3d_BLD if self.reads_a_3d else None))
            return a_3d_BLD
        text = self.attend_text(context.text_BTD) if not call.text else call.text
        if call.text is not None and not call.text:
            call.text.extend(text)
        if call.in_parts and h_BLD.shape[0] * h_BLD.shape[1] > PART_TOKENS:
            return self._in_parts(h_BLD, a_3d_BLD, context, text)
        known = self.prepare(call.recorded[0], call.recorded[1], context) if call.prepared is None else call.prepared
        if call.out is not None:
            call.out.extend(known)
        return self.edit(h_BLD, a_3d_BLD, context, known, text)

    def _in_parts(self, h_BLD: Tensor, a_3d_BLD: Tensor, context: TokenContext, text: Any) -> Tensor:
        """A few frames at a time, with the same result: the intermediate tensors of :meth:`edit` are then small.

        What is kept is prepared in the same parts as what is not, as a product over more rows may round otherwise.
        """
        call: BlockCall = context.call
        frames, height, width = context.grid
        step = max(1, PART_TOKENS // (height * width))
        out_BLD = torch.empty_like(a_3d_BLD)
        source: Any = call.recorded if call.prepared is None else call.prepared
        kept: Any = None
        for sample, first in itertools.product(range(len(h_BLD)), range(0, frames, step)):
            span = slice(first, min(first + step, frames))
            here = (slice(sample, sample + 1), slice(span.start * height * width, span.stop * height * width))
            part, own = context.part(sample, span), tree_map_only(Tensor, itemgetter(here), source)
            prepared = self.prepare(own[0], own[1], part) if call.prepared is None else own
            if call.out is not None:
                if kept is None:
                    kept = tree_map_only(Tensor, partial(_like, h_BLD), prepared)
                tree_map(partial(_put, here), kept, prepared)
            read = tree_map_only(Tensor, itemgetter(here[:1]), text)
            out_BLD[here] = self.edit(h_BLD[here], a_3d_BLD[here], part, prepared, read)
        if call.out is not None:
            call.out.extend(kept)
        return out_BLD

    def attend(self, phi: SpatialDifference, x_BLD: Tensor, source: Any, context: TokenContext) -> Tensor:
        """Φ on this pass's grid."""
        return phi(x_BLD, source, context.grid, context.plane(self.position))

    def source_keys_values(
        self, phi: SpatialDifference, source_BLD: Tensor, context: TokenContext
    ) -> KeysValues | Tensor:
        """What :meth:`attend` needs of the source: compiled, the tokens themselves, unless they are to be kept."""
        if torch.compiler.is_compiling() and context.call.out is None:
            return source_BLD
        return phi.source_keys_values(source_BLD, context.grid, context.plane(self.position))


def _twice(x: Tensor) -> Tensor:
    return torch.cat([x, x])


def _like(tokens_BLD: Tensor, part: Tensor) -> Tensor:
    """Room for what is prepared of all tokens, as it is of a part of them."""
    return part.new_empty(*tokens_BLD.shape[:2], *part.shape[2:])


def _put(here: tuple[slice, slice], whole: Any, part: Any) -> None:
    if part is not None:
        whole[here] = part
