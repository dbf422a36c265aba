"""What a block's attention is told, and how it is told: no fork, no subclass, no stashed state.

A frozen ``WanTransformer3DModel`` hands its blocks ``(hidden, text, temb, rotary)``, and a block hands its
self-attention ``(hidden, rotary)``. Hooks turn the rotary pair into a :class:`TokenContext`, still that pair for
diffusers, which also carries the rest. Since it travels through arguments, a checkpointed block is recomputed with the
context of its own forward pass, whatever ran in between.

Shapes: B batch, C channels, F frames, L tokens, T text tokens, D width, S rows of a rotary table.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from imvideoedit.layers.rope import Position, plane_table
from imvideoedit.layers.spatial_difference import Grid

_CALL = "edit_call"


@dataclass
class Features:
    """What a source left in the blocks, by their index.

    Attributes:
        left: the pair (H, A_3d), normalised modulated input and output of its frozen self-attention, each
            ``[B, L, D]``; None in place of an A_3d that no processor reads.
        ready: what processors made of that pair. With ``keep``, the first pass without gradients puts it here in place
            of the pair; else each pass makes it anew.
        nbytes, ready_nbytes: size of all pairs, and of all that processors make of them.
    """

    left: dict[int, tuple[Tensor, Tensor | None]] = field(default_factory=dict)
    ready: dict[int, Any] = field(default_factory=dict)
    keep: bool = False
    nbytes: int = 0
    ready_nbytes: int = 0


@dataclass
class EditCall:
    """What one forward pass of the transformer is for. Without one, an adapted transformer is the plain backbone.

    Args:
        mode: ``joint``: the batch is ``[target ; source]``; ``record``: it is the source, whose features are to be
            written down; ``read``: it is the target, which reads recorded features.
        features: of the source; filled in by a recording pass.
        hidden_BLD: what the last block left, where the method asked for it with :func:`keep_hidden`.
    """

    mode: Literal["joint", "record", "read"]
    features: Features = field(default_factory=Features)
    seen: bool = False
    hidden_BLD: Tensor | None = None


class TokenContext(tuple):
    """``(cos, sin)`` of the frozen 3D attention, plus what an adapter needs to know.

    Attributes:
        grid: tokens in time, height and width, ``(F, h, w)``.
        call: the call's own object, usually an :class:`EditCall`; None for a plain pass.
        text_BTD: embedded text as the cross-attention gets it; set inside a block.
        temb: modulation rows ``[B, 6, D]``, or ``[B, L, 6, D]`` for timesteps per token; set inside a block.
    """

    grid: Grid
    call: Any
    text_BTD: Tensor
    temb: Tensor
    _rope: nn.Module
    _planes: dict[Position, tuple[Tensor, Tensor]]

    def plane(self, position: Position) -> tuple[Tensor, Tensor]:
        """Rotary tables of ``[target ; source]`` for Φ, ``[1, 2*h*w, 1, E]`` each; built once a forward pass."""
        if position not in self._planes:
            rope: Any = self._rope
            split = (rope.t_dim, rope.h_dim, rope.w_dim)
            cos, sin = (
                plane_table(table, split, self.grid[1], self.grid[2], position)
                for table in (rope.freqs_cos, rope.freqs_sin)
            )
            self._planes[position] = (cos, sin)
        return self._planes[position]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TokenContext":
        """With its tables on a device. What sends arguments there, such as diffusers' offloading, loses nothing so."""
        moved = TokenContext(table.to(device, non_blocking=non_blocking) for table in self)
        moved.__dict__.update(self.__dict__)
        return moved

    def part(self, sample: int, frames: slice) -> "TokenContext":
        """For these frames of one sample; the tables of the 3D attention stay whole."""
        _, height, width = self.grid
        inner = TokenContext(self)
        temb = self.temb[sample : sample + 1]
        if temb.ndim == 4:  # a row a token
            temb = temb[:, frames.start * height * width : frames.stop * height * width]
        grid = (frames.stop - frames.start, height, width)
        inner.__dict__.update(self.__dict__, grid=grid, text_BTD=self.text_BTD[sample : sample + 1], temb=temb)
        return inner

    def inside_block(self, text_BTD: Tensor, temb: Tensor) -> "TokenContext":
        """A copy that knows the block's text and modulation."""
        inner = TokenContext(self)
        inner.__dict__.update(self.__dict__, text_BTD=text_BTD, temb=temb)
        return inner


class AdaptedProcessor(nn.Module, ABC):
    """An attention processor that runs the one it replaces and then changes the result.

    Subclasses implement :meth:`adapt`. All they register is trained and saved.

    Args:
        index: number of the block in the transformer.
    """

    inner: Any

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index
        # Kept from nn.Module's eyes: the replaced processor is not ours to train or save.
        self.__dict__["inner"] = None

    @abstractmethod
    def adapt(self, h_BLD: Tensor, a_3d_BLD: Tensor, context: TokenContext) -> Tensor:
        """Return what replaces the output A_3d of the frozen self-attention for its input H."""

    def forward(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None) -> Tensor:
        a_3d_BLD = self.inner(attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)
        if getattr(rotary_emb, "call", None) is None:
            return a_3d_BLD
        return self.adapt(hidden_states, a_3d_BLD, rotary_emb).to(a_3d_BLD.dtype)

    # diffusers sets these two on a block's processor to choose the kernel and to shard the sequence.
    @property
    def _attention_backend(self):
        return self.inner._attention_backend

    @_attention_backend.setter
    def _attention_backend(self, backend) -> None:
        self.inner._attention_backend = backend

    @property
    def _parallel_config(self):
        return self.inner._parallel_config

    @_parallel_config.setter
    def _parallel_config(self, config) -> None:
        self.inner._parallel_config = config


def attach(transformer: WanTransformer3DModel, processors: list[AdaptedProcessor]) -> list[RemovableHandle]:
    """Put one processor on each block's self-attention and hook the context in.

    Raises:
        RuntimeError: the transformer is adapted already.
    """
    if any(isinstance(block.attn1.processor, AdaptedProcessor) for block in transformer.blocks):
        raise RuntimeError("this transformer is adapted already; uninstall the other method first")
    handles = [transformer.rope.register_forward_hook(_after_rope)]
    for block, processor in zip(transformer.blocks, processors, strict=True):
        processor.__dict__["inner"] = block.attn1.processor
        block.attn1.set_processor(processor)
        handles.append(block.register_forward_pre_hook(_before_block))
    return handles


def detach(transformer: WanTransformer3DModel, handles: list[RemovableHandle]) -> None:
    """Undo :func:`attach`: the transformer gets its own processors back and loses every added parameter."""
    for handle in handles:
        handle.remove()
    for block in transformer.blocks:
        block.attn1.set_processor(block.attn1.processor.inner)


def denoise(
    transformer: WanTransformer3DModel, x_BCFHW: Tensor, sigma_B: Tensor, text_BTD: Tensor, call: Any = None
) -> Tensor:
    """One forward pass of the transformer.

    Args:
        x_BCFHW: latents at the noise levels ``sigma_B``; the network is told 1000 * sigma.
        text_BTD: text embeddings, before the transformer's own projection.
        call: reaches every block as ``context.call``.

    Returns:
        The predicted velocity, shape and dtype of ``x_BCFHW``.
    """
    dtype = transformer.patch_embedding.weight.dtype
    # The rope gets this very tensor, so it can carry the call there; a view, to leave the caller's tensor alone.
    latents = x_BCFHW.to(dtype).view_as(x_BCFHW)
    setattr(latents, _CALL, call)
    timestep_B = 1000 * sigma_B.float()
    velocity_BCFHW = transformer(latents, timestep_B, text_BTD.to(dtype), return_dict=False)[0]
    if isinstance(call, EditCall) and not call.seen:
        raise RuntimeError("the adapter was not reached: no method is installed, or a wrapper copied the latents")
    return velocity_BCFHW.to(x_BCFHW.dtype)


def _after_rope(rope: nn.Module, args: tuple[Tensor], rotary: tuple[Tensor, Tensor]) -> TokenContext:
    latents = args[0]
    context = TokenContext(rotary)
    patch: Any = rope.patch_size
    frames, height, width = (size // side for size, side in zip(latents.shape[2:], patch, strict=True))
    context.grid = (frames, height, width)
    context.call = getattr(latents, _CALL, None)
    context._rope, context._planes = rope, {}
    if isinstance(context.call, EditCall):
        context.call.seen = True
    return context


def _before_block(block: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    hidden, text_BTD, temb, context = args
    return hidden, text_BTD, temb, context.inside_block(text_BTD, temb)


def keep_hidden(transformer: WanTransformer3DModel) -> RemovableHandle:
    """From now on leave the output of the last block in each pass's ``EditCall``."""

    def after_block(block: nn.Module, args: tuple[Any, ...], hidden_BLD: Tensor) -> None:
        call = args[3].call
        if isinstance(call, EditCall):
            call.hidden_BLD = hidden_BLD

    return transformer.blocks[-1].register_forward_hook(after_block)


def block_dtype(transformer: WanTransformer3DModel) -> torch.dtype:
    """Dtype the blocks compute in; ``transformer.dtype`` may name a part kept in float32."""
    return transformer.blocks[0].attn1.to_q.weight.dtype
