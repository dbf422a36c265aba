"""FreeProp (FFP-300K): the edited first frame is given, and the whole video follows.

The transformer reads more channels: noise, the source's latents, the first frame's latents in latent frame 0, and a
mask that is 1 there. Low-rank deltas on attention and feed-forward layers are trained, and two things of the paper's:

    AST-RoPE            temporal heads see frame j at alpha_T * j; spatial heads see the first frame at alpha_S * F
    self-distillation   L = L_FM + 5 L_motion + L_MMD, where the teacher is the same pass with the target as the source

Shapes: B batch, C latent channels, F latent frames, H W latent pixels, L tokens, N heads.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import EditBatch, Input
from imvideoedit.flow.matching import FlowMatching, PathPoint
from imvideoedit.flow.solvers import Velocity
from imvideoedit.layers.position_scales import PositionScales
from imvideoedit.methods.ast_rope import give_heads_their_tables, rotary_of
from imvideoedit.methods.base import Method, what_it_reads
from imvideoedit.methods.block_lora import ATTENTION, FEED_FORWARD, lora_of, remove_lora, units_of
from imvideoedit.methods.freeprop_losses import consistency_loss, motion_loss, pooled
from imvideoedit.methods.head_masks import HeadMasks, read_head_masks
from imvideoedit.methods.keep_plan import KeepPlan
from imvideoedit.wan.forward import (
    arguments,
    embed,
    modulation,
    run_blocks,
    run_inside,
    tapped,
    unembed,
    widen_patch_embedding,
)

SCALES = "position_scales"  # of the whole video, in the conditions of its windows


class FreeProp(Method):
    """First-frame propagation.

    Args:
        rank: of the deltas, at least 1.
        heads: which are temporal: the file that ``python -m imvideoedit.methods.freeprop_heads`` wrote, ``bundled``
            for that of the nano backbone, or, as in an adapter's header, a list of 0 and 1 for the heads of each block.
            None: no AST-RoPE.
        width: of the network that predicts (alpha_S, alpha_T).
        motion, consistency: weights of L_motion and L_MMD, at least 0; with both 0 there is no teacher's pass.
        block: whose output is distilled; None for the one in the middle.
        objective: of training.

    Raises:
        UserError: an argument is out of its range, or the file is no such file.
    """

    name = "freeprop"
    inputs = (Input("first_frame", "image", from_target=True),)
    temporal_LN: Tensor  # of the heads of each block; there while installed

    def __init__(
        self,
        rank: int = 128,
        heads: str | Path | Sequence[Sequence[int]] | None = None,
        width: int = 256,
        motion: float = 5.0,
        consistency: float = 1.0,
        block: int | None = None,
        objective: FlowMatching | None = None,
    ) -> None:
        super().__init__(objective)
        if rank < 1 or width < 8 or width % 8 or min(motion, consistency) < 0:
            raise UserError(
                f"method.rank is {rank}, width {width}, motion {motion} and consistency {consistency}; rank is at "
                "least 1, width a multiple of 8, and the weights are at least 0"
            )
        self.rank, self.width, self.motion, self.consistency, self.block = rank, width, motion, consistency, block
        if heads is None:
            self.heads: HeadMasks | None = None
        else:
            self.heads = read_head_masks(heads) if isinstance(heads, str | Path) else HeadMasks.of(heads)

    def config(self) -> dict[str, Any]:
        heads = None if self.heads is None else [list(block) for block in self.heads.temporal]
        return {
            "rank": self.rank,
            "heads": heads,
            "width": self.width,
            "motion": self.motion,
            "consistency": self.consistency,
            "block": self.block,
        }

    def config_of(self, blocks: int) -> dict[str, Any]:
        own = self.config()
        return own | {"heads": own["heads"] and own["heads"][:blocks], "block": None}

    def check_base(self, transformer: WanTransformer3DModel) -> None:
        own: Any = transformer.config
        if own.in_channels not in (own.out_channels, 3 * own.out_channels) or own.image_dim is not None:
            raise UserError(
                f"freeprop takes a text-to-video model of {own.out_channels} input channels or a Fun-Control model of "
                f"{3 * own.out_channels}; this one has {what_it_reads(own)}; give another backbone"
            )

    def build(self, transformer: WanTransformer3DModel, dtype: torch.dtype) -> None:
        own: Any = transformer.config
        if self.block is not None and not 0 <= self.block < len(transformer.blocks):
            raise UserError(f"method.block is {self.block}; this model has blocks 0 to {len(transformer.blocks) - 1}")
        if self.heads is not None:
            self.heads.check(transformer)
        self.controlled = own.in_channels > own.out_channels
        more = 1 if self.controlled else 2 * own.out_channels + 1
        self.columns = widen_patch_embedding(transformer, more, dtype)
        self.lora = lora_of(transformer, ATTENTION + FEED_FORWARD, self.rank, dtype)
        if self.heads is not None:
            device = self.columns.weight.device
            self.scales = PositionScales(own.out_channels, self.width, device=device, dtype=dtype)
            chosen_LN = torch.tensor(self.heads.temporal, dtype=torch.bool, device=device)
            self.register_buffer("temporal_LN", chosen_LN, persistent=False)  # said by the settings
            self.__dict__["hooks"] = give_heads_their_tables(transformer)

    def remove(self, transformer: WanTransformer3DModel) -> None:
        remove_lora(self.lora)
        for hook in self.__dict__.pop("hooks", ()):
            hook.remove()

    def shard_units(self) -> Sequence[nn.Module]:
        return [self.columns, *units_of(self.lora), *([self.scales] if self.heads is not None else [])]

    def working_bytes(self, tokens: int) -> int:
        """The further channels, two pairs of rotary tables, and that of one block's heads."""
        transformer: Any = self.transformer
        own = transformer.config
        tables = 0 if self.heads is None else 2 * (2 + own.num_attention_heads) * own.attention_head_dim
        return 4 * tokens * (tables + 3 * math.prod(own.patch_size) * own.out_channels)

    # Sampling.

    def position_scales(self, source_BCFHW: Tensor) -> Tensor | None:
        """(alpha_S, alpha_T) of whole videos, ``[B, 2]``; None without AST-RoPE."""
        return None if self.heads is None else self.scales(source_BCFHW)

    @torch.no_grad()
    def window(self, batch: EditBatch, frames: slice, group: int) -> EditBatch:
        """The first frame is carried on to every window, and the coefficients are those of the whole video."""
        own = super().window(batch, frames, group)
        scales_B2 = batch.conditions.get(SCALES)  # of an earlier cut
        scales_B2 = self.position_scales(batch.source_BCFHW) if scales_B2 is None else scales_B2
        return own if scales_B2 is None else replace(own, conditions={**own.conditions, SCALES: scales_B2})

    @torch.no_grad()
    def condition(
        self, transformer: WanTransformer3DModel, batch: EditBatch, keep: KeepPlan | None = None
    ) -> Tensor | None:
        """The coefficients, once for all steps."""
        given = batch.conditions.get(SCALES)
        return self.position_scales(batch.source_BCFHW) if given is None else given

    def velocity(self, transformer: WanTransformer3DModel, batch: EditBatch, known: Tensor | None = None) -> Velocity:
        scales_B2 = self.position_scales(batch.source_BCFHW) if known is None else known
        channels = _channels(batch)

        def velocity(x_BCFHW: Tensor, sigma_B: Tensor) -> Tensor:
            taken = arguments(transformer, x_BCFHW, sigma_B, batch.text_BTD)
            return run_inside(transformer, partial(self._run, channels, scales_B2), *taken).to(x_BCFHW.dtype)

        return velocity

    def _run(
        self,
        channels: Tensor,
        scales_B2: Tensor | None,
        transformer: WanTransformer3DModel,
        x_BCFHW: Tensor,
        timestep_B: Tensor,
        text_BTD: Tensor,
    ) -> Tensor:
        time_BD, rows, text_BTD = modulation(transformer, timestep_B, text_BTD)
        further = channels.to(self.columns.weight.dtype)
        if self.controlled:
            x_BCFHW, further = torch.cat([x_BCFHW, channels[:, :-1].to(x_BCFHW.dtype)], dim=1), further[:, -1:]
        hidden_BLD = embed(transformer, x_BCFHW, self.columns, further)
        temporal_LN = None if self.heads is None else self.temporal_LN
        rotary = rotary_of(transformer, x_BCFHW, scales_B2, temporal_LN)
        hidden_BLD = run_blocks(transformer, hidden_BLD, text_BTD, rows, rotary)
        return unembed(transformer, hidden_BLD, time_BD, x_BCFHW.shape)

    def branches(self, transformer: WanTransformer3DModel, batch: EditBatch, known: Any) -> dict[str, Velocity]:
        nothing = {**batch.conditions, "first_frame": torch.zeros_like(batch.conditions["first_frame"])}
        bare = replace(batch, source_BCFHW=torch.zeros_like(batch.source_BCFHW), conditions=nothing)
        without: dict[str, Velocity] = {"without_source": self.velocity(transformer, bare, known)}
        text = {"edit": self.velocity(transformer, batch, known)}
        if batch.empty_TD is not None:
            text["without_text"] = self.velocity(transformer, batch.without_text(), known)
        return text | without

    # Training.

    def losses_at(
        self,
        transformer: WanTransformer3DModel,
        batch: EditBatch,
        point: PathPoint,
        sigma_B: Tensor,
        weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """``flow_matching``; of clips also ``motion`` and ``consistency``, with their weights."""
        if point.x_BCFHW.shape[2] == 1 or not (self.motion or self.consistency):
            return super().losses_at(transformer, batch, point, sigma_B, weights)
        assert batch.target_BCFHW is not None
        with torch.no_grad():  # the identity pass: the target follows from itself; first, so that taps see the other
            same = replace(batch, source_BCFHW=batch.target_BCFHW)
            _, teacher = self._observed(transformer, same, point.x_BCFHW, sigma_B)
        v_BCFHW, student = self._observed(transformer, batch, point.x_BCFHW, sigma_B)
        return {
            "flow_matching": self.objective.loss(v_BCFHW, point.velocity_BCFHW, weights),
            "motion": self.motion * motion_loss(student, teacher),
            "consistency": self.consistency * consistency_loss(student, teacher),
        }

    def _observed(
        self, transformer: WanTransformer3DModel, batch: EditBatch, x_BCFHW: Tensor, sigma_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The velocity, and the features that are distilled."""
        index = len(transformer.blocks) // 2 if self.block is None else self.block
        with tapped(transformer, [index]) as outputs:
            v_BCFHW = self.velocity(transformer, batch)(x_BCFHW, sigma_B)
        patch = transformer.config.patch_size
        f, h, w = (size // side for size, side in zip(x_BCFHW.shape[2:], patch, strict=True))
        return v_BCFHW, pooled(outputs[index], (f, h, w))


def _channels(batch: EditBatch) -> Tensor:
    """The source, the first frame with nothing behind it, and a mask of it: ``[B, 2C + 1, F, H, W]``."""
    source_BCFHW, first_BC1HW = batch.source_BCFHW, batch.conditions["first_frame"]
    rest = source_BCFHW.shape[2] - 1
    mask = torch.ones_like(source_BCFHW[:, :1, :1])
    first, mask = (functional.pad(x.to(source_BCFHW), (0, 0, 0, 0, 0, rest)) for x in (first_BC1HW, mask))
    return torch.cat([source_BCFHW, first, mask], dim=1)
