"""MiVE: what a vision-language model sees and reads, in one self-attention with the video.

A frozen Qwen3-VL reads source, reference and instruction in one pass. The states of its first and last layer become
the tokens C (Eq. 3-5); the reference is a latent frame before the video, in both halves of the channels (Eq. 6); and
the transformer runs on one sequence (Eq. 7) without cross-attention and without a text encoder:

    C = fuse([W_1 norm(f_1) ; W_L norm(f_L)]),    X = [ref, x_sigma ; ref, source],    [C ; embed(X)]

C and the reference are clean: their timestep is 0. The loss is that of the video's own frames.

The paper's formulas and optimizer settings are lost in the text that we have. By choice here: fuse is a linear map;
C is turned by no rotary position, and the reference stands at time 0, the video from 1 on; the columns for the second
half of the channels begin at zero; the first layer is read before the vision encoder's features are added behind it;
without the instruction, what was seen stays.

Shapes: B batch, C latent channels, F latent frames, H W latent pixels, L tokens, T tokens of C, D width.
"""

from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from imvideoedit.edit_batch import EditBatch, Input
from imvideoedit.flow.matching import FlowMatching
from imvideoedit.flow.solvers import Velocity
from imvideoedit.methods.backbone_method import BackboneMethod
from imvideoedit.methods.block_lora import ATTENTION, FEED_FORWARD, SELF_ATTENTION, MethodRotary
from imvideoedit.methods.mive_options import MiveOptions
from imvideoedit.methods.vision_language import VisionLanguage
from imvideoedit.wan.forward import (
    arguments,
    embed,
    modulation,
    run_blocks,
    run_inside,
    unembed,
    widen_patch_embedding,
)
from imvideoedit.wan.two_levels import TwoLevels, take_one_level, take_two_levels
from imvideoedit.wan.without_text import drop_text, restore_text

EPSILON = 1e-6  # of the norms


class ContextAdapter(nn.Module):
    """Features of layers, one beside the other, to tokens of the transformer: Eq. 3 to 5.

    Args:
        width: of a layer's features; ``layers``, how many; ``out``, the transformer's width.
    """

    def __init__(self, width: int, layers: int, out: int, device=None, dtype=None) -> None:
        super().__init__()
        where = {"device": device, "dtype": dtype}
        self.norms = nn.ModuleList(nn.RMSNorm(width, EPSILON, **where) for _ in range(layers))
        self.projections = nn.ModuleList(nn.Linear(width, out, **where) for _ in range(layers))
        self.fuse = nn.Linear(layers * out, out, **where)

    def forward(self, features_BTW: Tensor) -> Tensor:
        parts = features_BTW.to(self.fuse.weight.dtype).chunk(len(self.norms), dim=-1)
        branches = zip(self.norms, self.projections, parts, strict=True)
        return self.fuse(torch.cat([project(norm(part)) for norm, project, part in branches], dim=-1))


class Mive(BackboneMethod):
    """Multiscale vision-language features for reference-guided editing.

    ``EditBatch.text_BTD`` is what the model's layers say of source, reference and instruction, see :attr:`reader`.

    Args:
        objective: of training.
        options: see :class:`MiveOptions`.

    Raises:
        UserError: an option is out of its range.
    """

    name = "mive"
    inputs = (Input("reference", "image", from_target=True),)
    reads_instructions = True
    own_reader = True
    drops_weights = True  # what reads texts
    reader: VisionLanguage

    def __init__(self, objective: FlowMatching | None = None, **options: Any) -> None:
        super().__init__(objective)
        self.options = MiveOptions(**options)
        self.trains_backbone = self.options.adapter == "full"
        self.reader = VisionLanguage(self.options)

    def config(self) -> dict[str, Any]:
        return asdict(self.options)

    def build(self, transformer: WanTransformer3DModel, dtype: torch.dtype) -> None:
        config: Any = transformer.config
        alone = self.options.conditioning == "self"
        self.__dict__["dropped"] = drop_text(transformer, cross_attention=alone)
        take_two_levels(transformer)
        self.columns = widen_patch_embedding(transformer, config.out_channels, dtype)
        where = {"device": self.columns.weight.device, "dtype": dtype}
        self.context = ContextAdapter(self.options.width, len(self.options.read), self.columns.out_channels, **where)
        maps = (SELF_ATTENTION if alone else ATTENTION) + FEED_FORWARD
        self.build_weights(transformer, maps, self.options.rank, dtype)

    def remove(self, transformer: WanTransformer3DModel) -> None:
        super().remove(transformer)
        restore_text(transformer, self.__dict__.pop("dropped"))
        take_one_level(transformer)

    def working_bytes(self, tokens: int) -> int:
        """The further channels' tokens."""
        return 4 * tokens * 2 * self.columns.out_channels

    # The pass.

    def velocity(self, transformer: WanTransformer3DModel, batch: EditBatch, known: Any = None) -> Velocity:
        run = partial(self._run, batch.conditions["reference"], batch.source_BCFHW)

        def velocity(x_BCFHW: Tensor, sigma_B: Tensor) -> Tensor:
            taken = arguments(transformer, x_BCFHW, sigma_B, batch.text_BTD)
            return run_inside(transformer, run, *taken).to(x_BCFHW.dtype)

        return velocity

    def _run(
        self,
        reference_BC1HW: Tensor,
        source_BCFHW: Tensor,
        transformer: WanTransformer3DModel,
        x_BCFHW: Tensor,
        timestep_B: Tensor,
        features_BTW: Tensor,
    ) -> Tensor:
        patch: Any = transformer.config.patch_size
        # A latent frame, or as many as are a token's.
        first = reference_BC1HW.to(x_BCFHW.dtype).expand(-1, -1, patch[0], -1, -1)
        whole, beside = (torch.cat([first, video.to(x_BCFHW.dtype)], dim=2) for video in (x_BCFHW, source_BCFHW))
        video_BLD = embed(transformer, whole, self.columns, beside.to(self.columns.weight.dtype))
        context_BTD = self.context(features_BTW).to(video_BLD.dtype)
        # Two timesteps a sample, given to their tokens: those that are clean come first.
        both_B2 = torch.stack([torch.zeros_like(timestep_B), timestep_B], dim=1)
        time_B2D, rows_B26D, _ = modulation(transformer, both_B2, context_BTD)
        tables = transformer.rope(whole)
        noisy = video_BLD.shape[1] // (whole.shape[2] // patch[0]) * (x_BCFHW.shape[2] // patch[0])
        if self.options.conditioning == "self":
            video_BLD = torch.cat([context_BTD, video_BLD], dim=1)
            tables = behind_still(tables, context_BTD.shape[1])
        levels = TwoLevels(rows_B26D, video_BLD.shape[1] - noisy)
        rotary = tables if self.trains_backbone else MethodRotary.of(tables)
        hidden_BLD = run_blocks(transformer, video_BLD, context_BTD, levels, rotary)
        return unembed(transformer, hidden_BLD[:, -noisy:], time_B2D[:, 1], x_BCFHW.shape)

    # The branches.

    def branches(self, transformer: WanTransformer3DModel, batch: EditBatch, known: Any) -> dict[str, Velocity]:
        """With and without the instruction; all that was trained has a source."""
        return {
            "edit": self.velocity(transformer, batch),
            "without_text": self.velocity(transformer, self.labelled(batch).without_text()),
        }

    def labelled(self, batch: EditBatch) -> EditBatch:
        """With what each sample's features are without the instruction."""
        return replace(batch, empty_TD=self.reader.without_text(batch.text_BTD))


def behind_still(tables: tuple[Tensor, Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Rotary tables behind those of ``count`` tokens that are turned by nothing."""
    cos, sin = tables
    still = torch.zeros_like(sin[:, :1]).expand(-1, count, -1, -1)
    return torch.cat([still + 1, cos], dim=1), torch.cat([still, sin], dim=1)
