"""What an adapter in a block knows of the pass it is in.

A Wan block hands its self-attention ``(hidden, rotary)``. In a pass that edits, the rotary pair is a
:class:`TokenContext`: still that pair for diffusers, with the token grid, the text, the modulation and the method's own
object. It travels as an argument, so a checkpointed block is recomputed with the context of its own forward pass.

Shapes: B batch, C channels, F frames, L tokens, T text tokens, D width, E width of a head.
"""

from abc import ABC, abstractmethod
from functools import partial
from typing import Any, Self

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from imvideoedit.layers.quantized import is_packed
from imvideoedit.layers.rope import Position, plane_table
from imvideoedit.layers.spatial_difference import Grid
from imvideoedit.wan.forward import (
    arguments,
    embed,
    modulation,
    run_blocks,
    run_inside,
    unembed,
)
from imvideoedit.wan.token_split import RotaryPair


class TokenContext(RotaryPair):
    """``(cos, sin)`` of the frozen 3D attention, plus what an adapter needs to know.

    Attributes:
        grid: tokens in time, height and width, ``(F, h, w)``.
        call: the method's own object for this pass.
        text_BTD: text as the cross-attention gets it.
        temb: modulation rows ``[B, 6, D]``, or ``[B, L, 6, D]`` for timesteps per token.
    """

    grid: Grid
    call: Any
    text_BTD: Tensor
    temb: Tensor
    _rope: nn.Module
    _planes: dict[Position, tuple[Tensor, Tensor]]

    @classmethod
    def build(cls, rope: nn.Module, x_BCFHW: Tensor, text_BTD: Tensor, temb: Tensor, call: Any) -> "TokenContext":
        """The context of a pass over latents ``x_BCFHW``, with the transformer's ``rope``."""
        context, patch = cls(rope(x_BCFHW)), _any(rope).patch_size
        context.grid = tuple(size // side for size, side in zip(x_BCFHW.shape[2:], patch, strict=True))
        context.call, context.text_BTD, context.temb = call, text_BTD, temb
        context._rope, context._planes = rope, {}
        return context

    def plane(self, position: Position) -> tuple[Tensor, Tensor]:
        """Rotary tables of ``[target ; source]`` for Φ, ``[1, 2*h*w, 1, E]`` each; built once a forward pass."""
        if position not in self._planes:
            rope = _any(self._rope)
            split = (rope.t_dim, rope.h_dim, rope.w_dim)
            cos, sin = (
                plane_table(table, split, self.grid[1], self.grid[2], position)
                for table in (rope.freqs_cos, rope.freqs_sin)
            )
            self._planes[position] = (cos, sin)
        return self._planes[position]

    def told(self, call: Any) -> "TokenContext":
        """The same context with what one block is told."""
        copied = TokenContext(self)
        copied.__dict__.update(self.__dict__, call=call)
        return copied

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TokenContext":
        """With its tables on a device, as diffusers' offloading moves arguments."""
        copied = TokenContext(table.to(device, non_blocking=non_blocking) for table in self)
        copied.__dict__.update(self.__dict__)
        return copied

    def of_tokens(self, own: slice) -> Self:
        """For these tokens of all samples, which are those of whole frames."""
        _, height, width = self.grid
        part = super().of_tokens(own)
        part.grid = ((own.stop - own.start) // (height * width), height, width)
        part.temb = self.temb[:, own] if self.temb.ndim == 4 else self.temb
        return part

    def part(self, sample: int, frames: slice) -> "TokenContext":
        """For these frames of one sample; the tables of the 3D attention stay complete."""
        _, height, width = self.grid
        part = TokenContext(self)
        temb = self.temb[sample : sample + 1]
        if temb.ndim == 4:  # a row a token
            temb = temb[:, frames.start * height * width : frames.stop * height * width]
        grid = (frames.stop - frames.start, height, width)
        part.__dict__.update(self.__dict__, grid=grid, text_BTD=self.text_BTD[sample : sample + 1], temb=temb)
        return part


class AdaptedProcessor(nn.Module, ABC):
    """An attention processor that runs the one it replaces and then changes the result.

    Subclasses implement :meth:`adapt`. All they register is trained and saved. A plain pass of the transformer has no
    :class:`TokenContext`; there it is the processor it replaces.

    Args:
        index: number of the block in the transformer.

    Attributes:
        positions: of the planes it asks the context for, which are then built before the first block.
    """

    inner: Any
    positions: tuple[Position, ...] = ()

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index
        # Hidden from nn.Module: the replaced processor is not ours to train or save.
        self.__dict__["inner"] = None

    @abstractmethod
    def adapt(self, h_BLD: Tensor, a_3d_BLD: Tensor, context: TokenContext) -> Tensor:
        """Return what replaces the output A_3d of the frozen self-attention for its input H."""

    def forward(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None) -> Tensor:
        a_3d_BLD = self.inner(attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)
        if not isinstance(rotary_emb, TokenContext):
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


def attach(transformer: WanTransformer3DModel, processors: list[AdaptedProcessor]) -> None:
    """Put one processor on each block's self-attention, in a transformer whose forward pass is open."""
    for block, processor in zip(transformer.blocks, processors, strict=True):
        processor.__dict__["inner"] = _any(block).attn1.processor
        _any(block).attn1.set_processor(processor)


def detach(transformer: WanTransformer3DModel) -> None:
    """Undo :func:`attach`: the transformer gets its own processors back and loses every added parameter."""
    for block in transformer.blocks:
        _any(block).attn1.set_processor(_any(block).attn1.processor.inner)


def denoise_with(
    transformer: WanTransformer3DModel, x_BCFHW: Tensor, sigma_B: Tensor, text_BTD: Tensor, call: Any
) -> tuple[Tensor, Tensor]:
    """One forward pass in which the attached processors edit.

    Args:
        x_BCFHW, sigma_B, text_BTD: see :func:`imvideoedit.wan.forward.denoise`.
        call: reaches every block's processor as ``context.call``; a function makes each block's own from its index,
            just before it runs.

    Returns:
        The velocity, shape and dtype of ``x_BCFHW``, and the output of the last block ``[B, L, D]``.

    Raises:
        RuntimeError: no method is installed.
    """
    taken = arguments(transformer, x_BCFHW, sigma_B, text_BTD)
    velocity_BCFHW, hidden_BLD = run_inside(transformer, partial(_run_processors, call), *taken)
    return velocity_BCFHW.to(x_BCFHW.dtype), hidden_BLD


def _run_processors(
    call: Any, transformer: WanTransformer3DModel, x_BCFHW: Tensor, timestep: Tensor, text_BTD: Tensor
) -> tuple[Tensor, Tensor]:
    time, rows, text_BTD = modulation(transformer, timestep, text_BTD)
    context = TokenContext.build(transformer.rope, x_BCFHW, text_BTD, rows, call)
    processors = (_any(block).attn1.processor for block in transformer.blocks)
    for position in {position for processor in processors for position in processor.positions}:
        context.plane(position)  # a compiled block takes tables and builds none
    rotary = (lambda index: context.told(call(index))) if callable(call) else context
    frame = context.grid[1] * context.grid[2]
    hidden_BLD = run_blocks(transformer, embed(transformer, x_BCFHW), text_BTD, rows, rotary, unit=frame)
    return unembed(transformer, hidden_BLD, time, x_BCFHW.shape), hidden_BLD


def block_dtype(transformer: WanTransformer3DModel) -> torch.dtype:
    """Dtype the blocks compute in; ``transformer.dtype`` may name a part kept in float32."""
    own: Any = transformer
    linear = own.patch_embedding if is_packed(own.blocks[0].attn1.to_q.weight) else own.blocks[0].attn1.to_q
    return linear.weight.dtype


def _any(module: nn.Module) -> Any:
    """The module for the type checker, which does not see diffusers' attributes."""
    return module
