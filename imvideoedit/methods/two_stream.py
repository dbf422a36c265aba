"""What methods share that run a source stream beside the target stream through one transformer.

The frozen 3D attention never mixes the streams; they meet in Φ only. ``joint`` stacks them on the batch as
``[target ; source]`` with timesteps ``[t ; 0]``, and source tokens read target tokens too. ``cached`` lets the source
run alone, as the plain frozen backbone at timestep 0: it depends neither on the step nor on the guidance branch, so it
is computed once for an edit, without a gradient, and the target reads what it left.
"""

import itertools
from abc import abstractmethod
from operator import itemgetter
from typing import Any, Literal

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor
from torch.utils._pytree import tree_map_only

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import EditBatch
from imvideoedit.flow.matching import FlowMatching
from imvideoedit.flow.solvers import Velocity
from imvideoedit.layers.attention import ADAPTERS, Adapter, Memory
from imvideoedit.layers.rope import POSITIONS, Position
from imvideoedit.layers.spatial_difference import SpatialDifference
from imvideoedit.methods.base import Method
from imvideoedit.wan.context import AdaptedProcessor, EditCall, Features, TokenContext, denoise

SourceStream = Literal["cached", "joint"]
PART_TOKENS = 8000  # that sampling works on at a time, at least a frame


class TwoStreamProcessor(AdaptedProcessor):
    """Keeps the source's features in a recording pass; in the other modes :meth:`edit` does the method's work."""

    reads_a_3d = False  # of the source, too, and not its H alone: twice as much to keep
    ready_width = 0  # numbers a token in what :meth:`prepare` returns

    def __init__(self, index: int, position: Position) -> None:
        super().__init__(index)
        self.position = position

    @abstractmethod
    def edit(self, h_BLD: Tensor, a_3d_BLD: Tensor, context: TokenContext, source: Any) -> Tensor:
        """Return what replaces A_3d.

        Args:
            h_BLD, a_3d_BLD: H and A_3d; of both streams stacked when ``source`` is None, else the target's.
            source: what :meth:`prepare` made of the source, or None.
        """

    @abstractmethod
    def prepare(self, h_BLD: Tensor, a_3d_BLD: Tensor | None, context: TokenContext) -> Any:
        """Compute from the source's recorded H and A_3d all that :meth:`edit` needs of them: the same at any step.

        Returns:
            Nested tuples or lists of tensors ``[B, L, ...]``, or None.
        """

    def adapt(self, h_BLD: Tensor, a_3d_BLD: Tensor, context: TokenContext) -> Tensor:
        call: EditCall = context.call
        if call.mode == "record":
            call.features.left[self.index] = (h_BLD, a_3d_BLD if self.reads_a_3d else None)
            call.features.nbytes += h_BLD.nbytes * (2 if self.reads_a_3d else 1)
            call.features.ready_nbytes += h_BLD.nbytes // h_BLD.shape[-1] * self.ready_width
            return a_3d_BLD
        if call.mode == "joint":
            return self.edit(h_BLD, a_3d_BLD, context, None)
        features, sampling = call.features, not torch.is_grad_enabled()
        if sampling and features.keep and self.index in features.left:
            features.ready[self.index] = self.prepare(*features.left.pop(self.index), context)
        known = features.ready.get(self.index)
        if sampling and h_BLD.shape[0] * h_BLD.shape[1] > PART_TOKENS:
            return self._in_parts(h_BLD, a_3d_BLD, context, features, known)
        source = self.prepare(*features.left[self.index], context) if known is None else known
        return self.edit(h_BLD, a_3d_BLD, context, source)

    def _in_parts(self, h_BLD: Tensor, a_3d_BLD: Tensor, context, features: Features, known: Any) -> Tensor:
        """A few frames at a time, which changes nothing: what :meth:`edit` makes on its way is then small."""
        frames, height, width = context.grid
        step = max(1, PART_TOKENS // (height * width))
        out_BLD = torch.empty_like(a_3d_BLD)
        for sample, first in itertools.product(range(len(h_BLD)), range(0, frames, step)):
            span = slice(first, min(first + step, frames))
            here = (slice(sample, sample + 1), slice(span.start * height * width, span.stop * height * width))
            part = context.part(sample, span)
            source: Any = tree_map_only(Tensor, itemgetter(here), features.left[self.index] if known is None else known)
            ready = self.prepare(source[0], source[1], part) if known is None else source
            out_BLD[here] = self.edit(h_BLD[here], a_3d_BLD[here], part, ready)
        return out_BLD

    def meet(self, phi: SpatialDifference, x_BLD: Tensor, source: Memory | None, context: TokenContext) -> Tensor:
        """Φ on this pass's grid."""
        return phi(x_BLD, source, context.grid, context.plane(self.position))

    def remember(self, phi: SpatialDifference, source_BLD: Tensor, context: TokenContext) -> Memory:
        """What :meth:`meet` needs of the source."""
        return phi.source_memory(source_BLD, context.grid, context.plane(self.position))


class TwoStreamMethod(Method):
    """Stacking, cropping and caching of the two streams.

    Args:
        source_stream: ``cached`` or ``joint``, see the module's text.
        adapter: ``full`` trains copies of the inherited attentions; ``lora`` shares them frozen and trains low-rank
            deltas, and all new maps are low-rank too.
        rank: of ``lora``, at least 1.
        position: column indices of the source in Φ: ``running`` after the target's, or ``aligned`` with them.
        objective: of training.

    Raises:
        UserError: an argument is none of its choices.
    """

    def __init__(
        self,
        source_stream: SourceStream = "cached",
        adapter: Adapter = "full",
        rank: int = 32,
        position: Position = "aligned",
        objective: FlowMatching | None = None,
    ) -> None:
        super().__init__(objective)
        check_choice("source_stream", source_stream, ("cached", "joint"))
        check_choice("adapter", adapter, ADAPTERS)
        check_choice("position", position, POSITIONS)
        if rank < 1:
            raise UserError(f"method.rank is {rank}; it must be at least 1")
        self.source_stream = source_stream
        self.adapter = adapter
        self.rank = rank
        self.position = position

    def config(self) -> dict[str, Any]:
        return {
            "source_stream": self.source_stream,
            "adapter": self.adapter,
            "rank": self.rank,
            "position": self.position,
        }

    @torch.no_grad()
    def observe(self, transformer: WanTransformer3DModel, batch: EditBatch) -> Features | None:
        """Features of the source from one pass of the plain backbone; None for ``joint``.

        The text of that pass is the batch's, the edited prompt.
        """
        if self.source_stream == "joint":
            return None
        call = EditCall("record")
        denoise(transformer, batch.source_BCFHW, _zeros(batch), batch.text_BTD, call)
        return call.features

    def velocity(
        self, transformer: WanTransformer3DModel, batch: EditBatch, observed: Features | None = None
    ) -> Velocity:
        if self.source_stream == "joint":
            return self._joint_velocity(transformer, batch)
        features = self.observe(transformer, batch) if observed is None else observed
        assert features is not None

        def velocity(x_BCFHW: Tensor, sigma_B: Tensor) -> Tensor:
            call = EditCall("read", features)
            v_BCFHW = denoise(transformer, x_BCFHW, sigma_B, batch.text_BTD, call)
            return self.finish(v_BCFHW, x_BCFHW, sigma_B, batch.source_BCFHW, call)

        return velocity

    def finish(self, v_BCFHW: Tensor, x_BCFHW: Tensor, sigma_B: Tensor, source_BCFHW: Tensor, call: EditCall) -> Tensor:
        """The velocity that the method gives, from the transformer's own; the same, unless a method says otherwise."""
        return v_BCFHW

    def _joint_velocity(self, transformer: WanTransformer3DModel, batch: EditBatch) -> Velocity:
        def velocity(x_BCFHW: Tensor, sigma_B: Tensor) -> Tensor:
            streams = torch.cat([x_BCFHW, batch.source_BCFHW.to(x_BCFHW.dtype)])
            sigmas = torch.cat([sigma_B.float(), _zeros(batch)])
            call = EditCall("joint")
            both = denoise(transformer, streams, sigmas, torch.cat([batch.text_BTD] * 2), call)
            return self.finish(both.chunk(2)[0], x_BCFHW, sigma_B, batch.source_BCFHW, call)

        return velocity


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise a UserError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise UserError(f"method.{option} is {value!r}; choose {' or '.join(choices)}")


def _zeros(batch: EditBatch) -> Tensor:
    return torch.zeros(len(batch.source_BCFHW), device=batch.source_BCFHW.device)
