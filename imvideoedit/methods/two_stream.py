"""What methods share that run a source and a target stream through one transformer.

The frozen 3D attention never mixes the streams; only Φ does. ``joint`` stacks them on the batch as
``[target ; source]`` with timesteps ``[t ; 0]``, and source tokens attend to target tokens too. ``cached`` runs the
source alone, as the plain frozen backbone at timestep 0: its features depend neither on the step nor on the guidance
branch, so they are computed once for an edit, without a gradient, and the target attends to them.

Shapes: B batch, L tokens, D width; C channels, F frames, H W latent pixels.
"""

from typing import Any, Literal

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import EditBatch
from imvideoedit.flow.matching import FlowMatching
from imvideoedit.flow.solvers import Velocity
from imvideoedit.layers.attention import ADAPTERS, Adapter
from imvideoedit.layers.rope import POSITIONS, Position
from imvideoedit.methods.keep_plan import BlockBytes, KeepPlan
from imvideoedit.methods.processor_method import ProcessorMethod
from imvideoedit.methods.source_features import EditCall, SourceFeatures
from imvideoedit.wan.context import denoise_with
from imvideoedit.wan.forward import pass_bytes

SourceStream = Literal["cached", "joint"]


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

    def condition(
        self, transformer: WanTransformer3DModel, batch: EditBatch, keep: KeepPlan | None = None
    ) -> SourceFeatures | None:
        """Encode the source for sampling: its features from one pass of the plain backbone; None for ``joint``.

        The text of that pass is the batch's, the edited prompt.
        """
        if self.source_stream == "joint":
            return None
        features = SourceFeatures(sampling=True, keep=keep, device=batch.source_BCFHW.device)
        return self._features(transformer, batch, features)

    def feature_bytes(self, tokens: int) -> list[BlockBytes]:
        """H of each block, and A_3d where processors read that; and what they prepare of it. None for ``joint``."""
        if self.source_stream == "joint":
            return []
        weight = _any(self.transformer).patch_embedding.weight
        pair, value = tokens * len(weight) * weight.element_size(), tokens * weight.element_size()
        return [
            BlockBytes(pair * (1 + processor.reads_a_3d), value * processor.prepared_width)
            for processor in map(_any, self.blocks)
        ]

    def working_bytes(self, tokens: int) -> int:
        """The second stream's activations, where it runs in the same pass."""
        return pass_bytes(self.transformer, tokens) if self.source_stream == "joint" else 0

    def velocity(
        self, transformer: WanTransformer3DModel, batch: EditBatch, known: SourceFeatures | None = None
    ) -> Velocity:
        if self.source_stream == "joint":
            return self._joint_velocity(transformer, batch)
        features = self._features(transformer, batch, SourceFeatures()) if known is None else known
        texts: dict[int, list[Any]] | None = {} if features.sampling else None

        def velocity(x_BCFHW: Tensor, sigma_B: Tensor) -> Tensor:
            told = EditCall("read", features, texts).of_block
            v_BCFHW, hidden_BLD = denoise_with(transformer, x_BCFHW, sigma_B, batch.text_BTD, told)
            return self.finish(v_BCFHW, hidden_BLD, x_BCFHW, sigma_B, batch.source_BCFHW)

        return velocity

    def finish(
        self, v_BCFHW: Tensor, hidden_BLD: Tensor, x_BCFHW: Tensor, sigma_B: Tensor, source_BCFHW: Tensor
    ) -> Tensor:
        """The method's velocity from the transformer's own and its last hidden state; a hook for subclasses."""
        return v_BCFHW

    @torch.no_grad()
    def _features(
        self, transformer: WanTransformer3DModel, batch: EditBatch, features: SourceFeatures
    ) -> SourceFeatures:
        told = EditCall("record", features).of_block
        denoise_with(transformer, batch.source_BCFHW, _zeros(batch), batch.text_BTD, told)
        features.settle(len(transformer.blocks) - 1)
        return features

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


def _any(module: Any) -> Any:
    """The module for the type checker, which does not see its attributes."""
    return module
