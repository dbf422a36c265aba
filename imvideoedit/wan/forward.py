"""diffusers' Wan forward pass in named parts, equal to it bit for bit, for passes that take or give more.

A plain pass (:func:`denoise`) is diffusers' own. A pass that edits (:func:`denoise_with`) hands an object of the method
to every block and returns the last hidden state with the velocity. It runs through the transformer's own ``forward``,
so that offloading and caches, which wrap that, hold for it too.

Shapes: B batch, C channels, F frames, H W latent pixels, L tokens, T text tokens, D width, P values of a token.
"""

import contextlib
import types
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from imvideoedit.wan.context import AdaptedProcessor, TokenContext


def denoise(transformer: WanTransformer3DModel, x_BCFHW: Tensor, sigma_B: Tensor, text_BTD: Tensor) -> Tensor:
    """One forward pass of the plain backbone, whether or not a method is installed.

    Args:
        x_BCFHW: latents at the noise levels ``sigma_B``; the network's timestep is 1000 * sigma.
        text_BTD: text embeddings, before the transformer's own projection.

    Returns:
        The predicted velocity, shape and dtype of ``x_BCFHW``.
    """
    return transformer(*_arguments(transformer, x_BCFHW, sigma_B, text_BTD), return_dict=False)[0].to(x_BCFHW.dtype)


def denoise_with(
    transformer: WanTransformer3DModel, x_BCFHW: Tensor, sigma_B: Tensor, text_BTD: Tensor, call: Any
) -> tuple[Tensor, Tensor]:
    """One forward pass in which the installed method edits.

    Args:
        x_BCFHW, sigma_B, text_BTD: see :func:`denoise`.
        call: reaches every block's processor as ``context.call``.

    Returns:
        The velocity, shape and dtype of ``x_BCFHW``, and the output of the last block ``[B, L, D]``.

    Raises:
        RuntimeError: no method is installed.
    """
    if not _is_adapted(transformer):
        raise RuntimeError("no method is installed in this transformer")
    velocity_BCFHW, hidden_BLD = transformer(*_arguments(transformer, x_BCFHW, sigma_B, text_BTD), call=call)
    return velocity_BCFHW.to(x_BCFHW.dtype), hidden_BLD


def embed(transformer: WanTransformer3DModel, x_BCFHW: Tensor) -> Tensor:
    """Latents to tokens ``[B, L, D]``, frame by frame, row by row."""
    return transformer.patch_embedding(x_BCFHW).flatten(2).transpose(1, 2).contiguous()


def modulation(transformer: WanTransformer3DModel, timestep: Tensor, text_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Timesteps and text as the blocks take them.

    Args:
        timestep: ``[B]``, or ``[B, L]`` for one a token.

    Returns:
        The embedded timestep ``[B, D]`` or ``[B, L, D]``, the blocks' modulation rows ``[B, 6, D]`` or
        ``[B, L, 6, D]``, and the projected text ``[B, T, D]``.
    """
    per_token = timestep.shape[1] if timestep.ndim == 2 else None
    time, rows, text, _ = transformer.condition_embedder(timestep.flatten(), text_BTD, None, timestep_seq_len=per_token)
    return time, rows.unflatten(-1, (6, -1)), text


def run_blocks(
    transformer: WanTransformer3DModel, hidden_BLD: Tensor, text_BTD: Tensor, rows: Tensor, rotary: Any
) -> Tensor:
    """All blocks in turn, checkpointed where the transformer is so."""
    checkpointed = torch.is_grad_enabled() and transformer.gradient_checkpointing
    for block in transformer.blocks:
        if checkpointed:
            hidden_BLD = transformer._gradient_checkpointing_func(block, hidden_BLD, text_BTD, rows, rotary)
        else:
            hidden_BLD = block(hidden_BLD, text_BTD, rows, rotary)
    return hidden_BLD


def unembed(transformer: WanTransformer3DModel, hidden_BLD: Tensor, time: Tensor, shape: torch.Size) -> Tensor:
    """The last layer: tokens to a velocity ``[B, C', F, H, W]`` on the grid of latents of ``shape``.

    Args:
        time: the embedded timestep of :func:`modulation`.
    """
    table = transformer.scale_shift_table.to(time.device)
    if time.ndim == 3:
        table = table.unsqueeze(0)
    parts = (table + time.unsqueeze(-2)).chunk(2, dim=-2)
    shift, scale = ((part if time.ndim == 2 else part.squeeze(-2)).to(hidden_BLD.device) for part in parts)
    normed_BLD = (transformer.norm_out(hidden_BLD.float()) * (1 + scale) + shift).type_as(hidden_BLD)
    return unpatch(transformer.proj_out(normed_BLD), shape, transformer.config.patch_size)


def unpatch(x_BLP: Tensor, shape: torch.Size, patch: tuple[int, int, int]) -> Tensor:
    """Values of tokens, as the transformer's last layer orders them, on the grid of latents of ``shape``."""
    sizes = [size // side for size, side in zip(shape[2:], patch, strict=True)]
    x = x_BLP.reshape(len(x_BLP), *sizes, *patch, -1).permute(0, 7, 1, 4, 2, 5, 3, 6)
    return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)


@contextlib.contextmanager
def tapped(transformer: WanTransformer3DModel, blocks: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Inside, the outputs ``[B, L, D]`` of these blocks in the latest pass, by index."""
    outputs: dict[int, Tensor] = {}

    def tap(index: int) -> Any:
        return transformer.blocks[index].register_forward_hook(
            lambda block, args, hidden_BLD: outputs.__setitem__(index, hidden_BLD)
        )

    handles = [tap(index) for index in blocks]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def attach(transformer: WanTransformer3DModel, processors: list[AdaptedProcessor]) -> None:
    """Put one processor on each block's self-attention, and let the forward pass take a ``call``.

    Raises:
        RuntimeError: the transformer is adapted already.
    """
    if _is_adapted(transformer):
        raise RuntimeError("this transformer is adapted already; uninstall the other method first")
    for block, processor in zip(transformer.blocks, processors, strict=True):
        processor.__dict__["inner"] = block.attn1.processor
        block.attn1.set_processor(processor)
    # Bound, so that a copy of the transformer runs the copy.
    transformer.forward = types.MethodType(_forward, transformer)


def detach(transformer: WanTransformer3DModel) -> None:
    """Undo :func:`attach`: the transformer gets its own processors back and loses every added parameter."""
    for block in transformer.blocks:
        block.attn1.set_processor(block.attn1.processor.inner)
    if getattr(vars(transformer).get("forward"), "__func__", None) is _forward:
        del transformer.forward


def _forward(self: Any, *args: Any, call: Any = None, **options: Any) -> Any:
    """The stock forward pass, or one in which processors get ``call``: velocity and last hidden state."""
    if call is None:
        return type(self).forward(self, *args, **options)
    x_BCFHW, timestep, text_BTD = args
    time, rows, text_BTD = modulation(self, timestep, text_BTD)
    context = TokenContext.build(self.rope, x_BCFHW, text_BTD, rows, call)
    hidden_BLD = run_blocks(self, embed(self, x_BCFHW), text_BTD, rows, context)
    return unembed(self, hidden_BLD, time, x_BCFHW.shape), hidden_BLD


def _is_adapted(transformer: WanTransformer3DModel) -> bool:
    blocks: Any = transformer.blocks
    return isinstance(blocks[0].attn1.processor, AdaptedProcessor)


def _arguments(transformer: Any, x_BCFHW: Tensor, sigma_B: Tensor, text_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    dtype = transformer.patch_embedding.weight.dtype
    return x_BCFHW.to(dtype), 1000 * sigma_B.float(), text_BTD.to(dtype)
