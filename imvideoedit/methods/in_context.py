"""A plain low-rank adapter in context: the source's tokens stand beside the target's in the frozen attention.

Nothing is put between the blocks: the sequence is [target ; source], the source's tokens are clean (timestep 0), and
low-rank deltas are trained on linear maps of the blocks. The baseline for every method here that does more, and the
one whose result is an ordinary LoRA, which ``python -m imvideoedit.methods.lora_export`` writes.

Shapes: B batch, C latent channels, F latent frames, H W latent pixels, L tokens of the target, D width.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import EditBatch
from imvideoedit.flow.matching import FlowMatching
from imvideoedit.flow.solvers import Velocity
from imvideoedit.methods.base import Method
from imvideoedit.methods.block_lora import ATTENTION, FEED_FORWARD, MethodRotary, lora_of, remove_lora, units_of
from imvideoedit.wan.forward import arguments, embed, modulation, pass_bytes, run_blocks, run_inside, unembed

Maps = Literal["attention", "all"]
Place = Literal["same", "behind"]
MAPS: dict[str, Sequence[str]] = {"attention": ATTENTION, "all": ATTENTION + FEED_FORWARD}


class InContext(Method):
    """In-context low-rank adaptation.

    Args:
        rank: of the deltas, at least 1.
        maps: ``attention`` for deltas on self- and cross-attention, ``all`` on the feed-forward layers, too.
        place: of the source's tokens in rotary positions: the ``same`` as the target's, or ``behind`` its last frame.
            The same places hold for videos of any length, also where only stills were seen in training.
        objective: of training.

    Raises:
        UserError: an argument is none of its choices.
    """

    name = "in_context"

    def __init__(
        self, rank: int = 32, maps: Maps = "all", place: Place = "same", objective: FlowMatching | None = None
    ) -> None:
        super().__init__(objective)
        if rank < 1:
            raise UserError(f"method.rank is {rank}; it must be at least 1")
        for option, value, choices in (("maps", maps, get_args(Maps)), ("place", place, get_args(Place))):
            if value not in choices:
                raise UserError(f"method.{option} is {value!r}; choose {' or '.join(choices)}")
        self.rank, self.maps, self.place = rank, maps, place

    def config(self) -> dict[str, Any]:
        return {"rank": self.rank, "maps": self.maps, "place": self.place}

    def build(self, transformer: WanTransformer3DModel, dtype: torch.dtype) -> None:
        self.lora = lora_of(transformer, MAPS[self.maps], self.rank, dtype)

    def remove(self, transformer: WanTransformer3DModel) -> None:
        remove_lora(self.lora)

    def shard_units(self) -> Sequence[nn.Module]:
        return units_of(self.lora)

    def working_bytes(self, tokens: int) -> int:
        """The source's activations, and both streams' modulation, a token's own: as made, and twice in float32."""
        own: Any = self.transformer
        item = own.patch_embedding.weight.element_size()
        rows = tokens * own.patch_embedding.out_channels * 2 * 6 * (item + 2 * 4)
        return pass_bytes(own, tokens) + rows

    def velocity(self, transformer: WanTransformer3DModel, batch: EditBatch, known: Any = None) -> Velocity:
        run = partial(in_context_pass, batch.source_BCFHW, self.place)

        def velocity(x_BCFHW: Tensor, sigma_B: Tensor) -> Tensor:
            taken = arguments(transformer, x_BCFHW, sigma_B, batch.text_BTD)
            return run_inside(transformer, run, *taken).to(x_BCFHW.dtype)

        return velocity


def in_context_pass(
    source_BCFHW: Tensor,
    place: str,
    transformer: WanTransformer3DModel,
    x_BCFHW: Tensor,
    timestep_B: Tensor,
    text_BTD: Tensor,
) -> Tensor:
    """The target's velocity ``[B, C, F, H, W]`` from a pass over target and source together.

    Args:
        place: see :class:`InContext`.
        x_BCFHW, timestep_B, text_BTD: as the transformer takes them.
    """
    target_BLD, source_BLD = embed(transformer, x_BCFHW), embed(transformer, source_BCFHW.to(x_BCFHW.dtype))
    length = target_BLD.shape[1]
    # Two timesteps a sample, given to their tokens: fewer products than one for each token, and the same.
    both = torch.stack([timestep_B, torch.zeros_like(timestep_B)], dim=1)
    time_B2D, rows, text_BTD = modulation(transformer, both, text_BTD)
    rows = rows.repeat_interleave(length, dim=1)
    rotary = transformer.rope(torch.cat([x_BCFHW, x_BCFHW], dim=2))
    if place == "same":
        rotary = tuple(torch.cat([table[:, :length]] * 2, dim=1) for table in rotary)
    hidden_BLD = torch.cat([target_BLD, source_BLD], dim=1)
    hidden_BLD = run_blocks(transformer, hidden_BLD, text_BTD, rows, MethodRotary.of(rotary))
    return unembed(transformer, hidden_BLD[:, :length], time_B2D[:, 0], x_BCFHW.shape)
