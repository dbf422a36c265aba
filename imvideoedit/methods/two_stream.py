"""What methods share that run a source and a target stream through one transformer.

The frozen 3D attention never mixes the streams; only Φ does. ``joint`` stacks them on the batch as
``[target ; source]`` with timesteps ``[t ; 0]``, and source tokens attend to target tokens too. ``cached`` runs the
source alone, as the plain frozen backbone at timestep 0: its features depend neither on the step nor on the guidance
branch, so they are computed once for an edit, without a gradient, and the target attends to them.

Shapes: B batch, L tokens, D width; C channels, F frames, H W latent pixels.
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
from imvideoedit.layers.attention import ADAPTERS, Adapter, KeysValues
from imvideoedit.layers.rope import POSITIONS, Position
from imvideoedit.layers.spatial_difference import SpatialDifference
from imvideoedit.methods.processor_method import ProcessorMethod
from imvideoedit.methods.source_features import BlockCall, EditCall, SourceFeatures
from imvideoedit.wan.context import AdaptedProcessor, TokenContext, denoise_with

SourceStream = Literal["cached", "joint"]
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
    def edit(self, h_BLD: Tensor, a_3d_BLD: Tensor, context: TokenContext, source: Any) -> Tensor:
        """Return what replaces A_3d.

        Args:
            h_BLD, a_3d_BLD: H and A_3d; of both streams stacked when ``source`` is None, else the target's.
            source: result of :meth:`prepare` for the source, or None.
        """

    @abstractmethod
    def prepare(self, h_BLD: Tensor, a_3d_BLD: Tensor | None, context: TokenContext) -> Any:
        """Compute from the source's recorded H and A_3d all that :meth:`edit` needs of them: the same at any step.

        Returns:
            A tuple or list of tensors ``[B, L, ...]``, of such, and of None.
        """

    def adapt(self, h_BLD: Tensor, a_3d_BLD: Tensor, context: TokenContext) -> Tensor:
        call: BlockCall = context.call
        if call.mode == "joint":
            return self.edit(h_BLD, a_3d_BLD, context, None)
        if call.mode == "record":
            call.out.extend((h_BLD, a_3d_BLD if self.reads_a_3d else None))
            return a_3d_BLD
        known = call.prepared
        if call.out is not None:
            call.out.extend(self.prepare(call.recorded[0], call.recorded[1], context))
            known = call.out
        if call.in_parts and h_BLD.shape[0] * h_BLD.shape[1] > PART_TOKENS:
            return self._in_parts(h_BLD, a_3d_BLD, context, call.recorded, known)
        if known is None:
            known = self.prepare(call.recorded[0], call.recorded[1], context)
        return self.edit(h_BLD, a_3d_BLD, context, known)

    def _in_parts(self, h_BLD: Tensor, a_3d_BLD: Tensor, context: TokenContext, recorded: Any, known: Any) -> Tensor:
        """A few frames at a time, with the same result: the intermediate tensors of :meth:`edit` are then small."""
        frames, height, width = context.grid
        step = max(1, PART_TOKENS // (height * width))
        out_BLD = torch.empty_like(a_3d_BLD)
        source: Any = recorded if known is None else known
        for sample, first in itertools.product(range(len(h_BLD)), range(0, frames, step)):
            span = slice(first, min(first + step, frames))
            here = (slice(sample, sample + 1), slice(span.start * height * width, span.stop * height * width))
            part, own = context.part(sample, span), tree_map_only(Tensor, itemgetter(here), source)
            prepared = self.prepare(own[0], own[1], part) if known is None else own
            out_BLD[here] = self.edit(h_BLD[here], a_3d_BLD[here], part, prepared)
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


class TwoStreamMethod(ProcessorMethod):
    """Stacking and caching of the two streams.

    Args:
        source_stream: ``cached`` or ``joint``, see above.
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

    def condition(self, transformer: WanTransformer3DModel, batch: EditBatch) -> SourceFeatures | None:
        """Encode the source for sampling: its features from one pass of the plain backbone; None for ``joint``.

        The text of that pass is the batch's, the edited prompt.
        """
        return None if self.source_stream == "joint" else self._features(transformer, batch, sampling=True)

    def condition_bytes(self, known: SourceFeatures | None) -> int:
        return 0 if known is None else known.nbytes

    def keep_prepared(self, known: SourceFeatures | None, room: float) -> None:
        if known is not None:
            known.keep_prepared = known.prepared_nbytes <= room

    def working_bytes(self, tokens: int) -> int:
        """The source's features: H of each block, and A_3d where processors read that."""
        transformer: Any = self.transformer
        kept: list[Any] = list(self.blocks)
        value = transformer.patch_embedding.out_channels * transformer.patch_embedding.weight.element_size()
        return tokens * value * sum(1 + processor.reads_a_3d for processor in kept)

    def velocity(
        self, transformer: WanTransformer3DModel, batch: EditBatch, known: SourceFeatures | None = None
    ) -> Velocity:
        if self.source_stream == "joint":
            return self._joint_velocity(transformer, batch)
        features = self._features(transformer, batch, sampling=False) if known is None else known

        def velocity(x_BCFHW: Tensor, sigma_B: Tensor) -> Tensor:
            told = EditCall("read", features).of_block
            v_BCFHW, hidden_BLD = denoise_with(transformer, x_BCFHW, sigma_B, batch.text_BTD, told)
            return self.finish(v_BCFHW, hidden_BLD, x_BCFHW, sigma_B, batch.source_BCFHW)

        return velocity

    def finish(
        self, v_BCFHW: Tensor, hidden_BLD: Tensor, x_BCFHW: Tensor, sigma_B: Tensor, source_BCFHW: Tensor
    ) -> Tensor:
        """The method's velocity from the transformer's own and its last hidden state; a hook for subclasses."""
        return v_BCFHW

    @torch.no_grad()
    def _features(self, transformer: WanTransformer3DModel, batch: EditBatch, sampling: bool) -> SourceFeatures:
        call = EditCall("record", SourceFeatures(sampling=sampling))
        denoise_with(transformer, batch.source_BCFHW, _zeros(batch), batch.text_BTD, call.of_block)
        if sampling:
            self._measure(call.features)
        return call.features

    def _measure(self, features: SourceFeatures) -> None:
        """Set the sizes that decide on what is kept."""
        kept: list[Any] = list(self.blocks)
        features.nbytes = sum(each.nbytes for pair in features.recorded.values() for each in pair if each is not None)
        for index, (h_BLD, _) in features.recorded.items():
            assert h_BLD is not None
            features.prepared_nbytes += h_BLD.nbytes // h_BLD.shape[-1] * kept[index].prepared_width

    def _joint_velocity(self, transformer: WanTransformer3DModel, batch: EditBatch) -> Velocity:
        def velocity(x_BCFHW: Tensor, sigma_B: Tensor) -> Tensor:
            streams = torch.cat([x_BCFHW, batch.source_BCFHW.to(x_BCFHW.dtype)])
            sigmas = torch.cat([sigma_B.float(), _zeros(batch)])
            both, hidden = denoise_with(
                transformer,
                streams,
                sigmas,
                torch.cat([batch.text_BTD] * 2),
                EditCall("joint", SourceFeatures()).of_block,
            )
            return self.finish(both.chunk(2)[0], hidden.chunk(2)[0], x_BCFHW, sigma_B, batch.source_BCFHW)

        return velocity


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise a UserError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise UserError(f"method.{option} is {value!r}; choose {' or '.join(choices)}")


def _zeros(batch: EditBatch) -> Tensor:
    return torch.zeros(len(batch.source_BCFHW), device=batch.source_BCFHW.device)
