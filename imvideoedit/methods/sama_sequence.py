"""The one sequence of SAMA, on which the whole transformer runs.

    [source 0 | semantic tokens 1 | target 2],   each token plus the embedding of its type, which starts at zero

Source and target have the same rotary positions, and all tokens one timestep; the text comes by cross-attention.

Shapes: B batch, C latent channels, F latent frames, H W latent pixels, L tokens, D width, S semantic tokens, W theirs.
"""

from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from imvideoedit.flow.matching import FlowMatching
from imvideoedit.flow.solvers import State, video_of
from imvideoedit.methods.backbone_method import BackboneMethod
from imvideoedit.methods.block_lora import FEED_FORWARD, SELF_ATTENTION, MethodRotary
from imvideoedit.methods.sama_options import SamaOptions
from imvideoedit.methods.semantic_tokens import TOKENS, Projector, SemanticHead, Siglip
from imvideoedit.wan.forward import arguments, embed, modulation, run_blocks, run_inside, unembed

SOURCE, SEMANTIC, TARGET = range(3)  # types of tokens


class SamaSequence(BackboneMethod):
    """What SAMA puts into a transformer, and its pass.

    Args:
        objective: of training.
        options: see :class:`SamaOptions`.

    Raises:
        UserError: an option is out of its range.
    """

    def __init__(self, objective: FlowMatching | None = None, **options: Any) -> None:
        super().__init__(objective)
        self.options = SamaOptions(**options)
        self.trains_backbone = self.options.adapter == "full"
        self.siglip = Siglip(self.options.siglip, self.options.width)

    def config(self) -> dict[str, Any]:
        return asdict(self.options)

    def build(self, transformer: WanTransformer3DModel, dtype: torch.dtype) -> None:
        own: Any = transformer.patch_embedding
        inner, where = own.out_channels, {"device": own.weight.device, "dtype": dtype}
        self.build_weights(transformer, SELF_ATTENTION + FEED_FORWARD, self.options.rank, dtype)
        if self.options.roles == "types":
            self.types = nn.Embedding(3, inner, **where)
            nn.init.zeros_(self.types.weight)
        if self.options.anchoring:
            width = self.options.width
            self.project = Projector(width, self.options.hidden, inner, **where)
            self.head = SemanticHead(inner, inner if self.projected else width, **where)

    def working_bytes(self, tokens: int) -> int:
        """Those of the source's tokens in a block, and both sides' rotary tables."""
        transformer: Any = self.transformer
        own = transformer.config
        heads, size = own.num_attention_heads, own.attention_head_dim
        return 4 * tokens * (8 * heads * size + own.ffn_dim + 4 * size)

    @property
    def projected(self) -> bool:
        """Whether semantic tokens are noised in the transformer's width."""
        return self.options.sem_target == "x0_projected"

    def predicted(
        self,
        transformer: WanTransformer3DModel,
        source_BCFHW: Tensor | None,
        text_BTD: Tensor,
        state: State,
        sigma_B: Tensor,
    ) -> State:
        """The video's velocity, and what the head predicts."""
        taken = arguments(transformer, video_of(state), sigma_B, text_BTD)
        semantic_BSW = state["semantic"] if self.options.anchoring else None
        video_BCFHW, read_BSW = run_inside(transformer, partial(self._run, source_BCFHW, semantic_BSW), *taken)
        return video_BCFHW if read_BSW is None else {"video": video_BCFHW, "semantic": read_BSW.float()}

    def _run(
        self,
        source_BCFHW: Tensor | None,
        semantic_BSW: Tensor | None,
        transformer: WanTransformer3DModel,
        x_BCFHW: Tensor,
        timestep_B: Tensor,
        text_BTD: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        time_BD, rows, text_BTD = modulation(transformer, timestep_B, text_BTD)
        tables, behind = self._tables(transformer, x_BCFHW)
        parts = [(self._typed(embed(transformer, x_BCFHW), TARGET), tables)]
        if semantic_BSW is not None:
            tokens_BSD = semantic_BSW
            if not self.projected:
                tokens_BSD = self.project(semantic_BSW.to(self.project.fc1.weight.dtype))
            turning = float(self.options.sem_rope == "identity")  # a rotation by nothing, or by a zero
            still = torch.full_like(tables[0][:, :1], turning).expand(-1, TOKENS, -1, -1)
            parts.insert(0, (self._typed(tokens_BSD.to(parts[0][0].dtype), SEMANTIC), (still, torch.zeros_like(still))))
        if source_BCFHW is not None:
            source_BLD = embed(transformer, source_BCFHW.to(x_BCFHW.dtype))
            parts.insert(0, (self._typed(source_BLD, SOURCE), behind))
        cos, sin = (torch.cat([own[side] for _, own in parts], dim=1) for side in (0, 1))
        rotary = (cos, sin) if self.trains_backbone else MethodRotary.of((cos, sin))
        hidden_BLD = run_blocks(transformer, torch.cat([x for x, _ in parts], dim=1), text_BTD, rows, rotary)
        length = parts[-1][0].shape[1]
        video_BCFHW = unembed(transformer, hidden_BLD[:, -length:], time_BD, x_BCFHW.shape)
        if semantic_BSW is None:
            return video_BCFHW, None
        return video_BCFHW, self.head(hidden_BLD[:, -length - TOKENS : -length].to(self.head.proj.weight.dtype))

    def _tables(self, transformer: WanTransformer3DModel, x_BCFHW: Tensor) -> tuple[Any, Any]:
        """Rotary tables of the target, and of the source."""
        rope: Any = transformer.rope
        if self.options.roles == "types":
            return (tables := rope(x_BCFHW)), tables
        both = [table.chunk(2, dim=1) for table in rope(torch.cat([x_BCFHW, x_BCFHW], dim=2))]
        return tuple(table[0] for table in both), tuple(table[1] for table in both)

    def _typed(self, tokens_BLD: Tensor, kind: int) -> Tensor:
        if self.options.roles == "shift":
            return tokens_BLD
        return tokens_BLD + self.types(torch.full((1,), kind, device=tokens_BLD.device)).to(tokens_BLD.dtype)
