"""diffusers' Wan forward pass in named parts, equal to it bit for bit, for passes that take or give more.

A plain pass (:func:`denoise`) is diffusers' own. A method's pass is a function of the transformer that
:func:`run_inside` runs within the transformer's own ``forward``, so that offloading and caches, which wrap that, hold
for it too. It puts the parts together as it likes: further input channels, tokens of its own before the video's,
a timestep for each token, image tokens, another rotary table in each block.

Shapes: B batch, C channels, F frames, H W latent pixels, L tokens, T text tokens, D width, P values of a token.
"""

import contextlib
import types
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from imvideoedit.wan.token_split import split_of

TAPS = "_taps"  # attribute of a transformer: dictionaries that take outputs of blocks
COMPILED = "_is_compiled"  # attribute of a transformer whose blocks are
WORK_WIDTHS, WORK_HIDDEN = 7, 2  # values of a token within a block, in widths of the model and of its feed-forward


def denoise(transformer: WanTransformer3DModel, x_BCFHW: Tensor, sigma_B: Tensor, text_BTD: Tensor) -> Tensor:
    """One forward pass of the plain backbone, whether or not a method is installed.

    Args:
        x_BCFHW: latents at the noise levels ``sigma_B``; the network's timestep is 1000 * sigma.
        text_BTD: text embeddings, before the transformer's own projection.

    Returns:
        The predicted velocity, shape and dtype of ``x_BCFHW``.
    """
    taken = arguments(transformer, x_BCFHW, sigma_B, text_BTD)
    if split_of(transformer) is not None:
        return run_inside(transformer, _in_parts, *taken).to(x_BCFHW.dtype)
    return transformer(*taken, return_dict=False)[0].to(x_BCFHW.dtype)


def denoise_in_parts(transformer: WanTransformer3DModel, x_BCFHW: Tensor, sigma_B: Tensor, text_BTD: Tensor) -> Tensor:
    """As :func:`denoise`, bit for bit, but seen by :func:`tapped` and unseen by what wraps the forward pass."""
    return _in_parts(transformer, *arguments(transformer, x_BCFHW, sigma_B, text_BTD)).to(x_BCFHW.dtype)


def _in_parts(transformer: WanTransformer3DModel, x_BCFHW: Tensor, timestep: Tensor, text_BTD: Tensor) -> Tensor:
    time, rows, text_BTD = modulation(transformer, timestep, text_BTD)
    hidden_BLD = run_blocks(transformer, embed(transformer, x_BCFHW), text_BTD, rows, transformer.rope(x_BCFHW))
    return unembed(transformer, hidden_BLD, time, x_BCFHW.shape)


def arguments(
    transformer: WanTransformer3DModel, x_BCFHW: Tensor, sigma: Tensor, text_BTD: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, timesteps and text as the transformer takes them; noise levels ``[B]``, or ``[B, L]`` for each token."""
    dtype = _any(transformer).patch_embedding.weight.dtype
    return x_BCFHW.to(dtype), 1000 * sigma.float(), text_BTD.to(dtype)


def run_inside(transformer: WanTransformer3DModel, run: Callable[..., Any], *tensors: Tensor) -> Any:
    """``run(transformer, *tensors)`` within the transformer's forward pass.

    Raises:
        RuntimeError: no method is installed.
    """
    if not is_open(transformer):
        raise RuntimeError("no method is installed in this transformer")
    return transformer(*tensors, run=run)


def embed(
    transformer: WanTransformer3DModel, x_BCFHW: Tensor, widened: nn.Module | None = None, more: Tensor | None = None
) -> Tensor:
    """Latents to tokens ``[B, L, D]``, frame by frame, row by row.

    Args:
        widened: see :func:`widen_patch_embedding`.
        more: the further channels, ``[B, C', F, H, W]``.
    """
    tokens = _any(transformer).patch_embedding(x_BCFHW)
    if widened is not None:
        tokens = tokens + widened(more).to(tokens.dtype)
    return tokens.flatten(2).transpose(1, 2).contiguous()


def widen_patch_embedding(transformer: WanTransformer3DModel, channels: int, dtype: torch.dtype) -> nn.Conv3d:
    """Columns of the patch embedding for further input channels, all zero: a module of the method's own.

    The embedding is linear, so that the frozen one plus this one, by :func:`embed`, is the widened one.
    """
    own: Any = _any(transformer).patch_embedding
    where = {"device": own.weight.device, "dtype": dtype}
    columns = nn.Conv3d(channels, own.out_channels, own.kernel_size, own.stride, bias=False, **where)
    nn.init.zeros_(columns.weight)
    return columns


def modulation(
    transformer: WanTransformer3DModel, timestep: Tensor, text_BTD: Tensor, image_BID: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Timesteps and text as the blocks take them.

    Args:
        timestep: ``[B]``, or ``[B, L]`` for one a token.
        image_BID: features of an image encoder, ``[B, I, D']``, for models that take them (Wan I2V).

    Returns:
        The embedded timestep ``[B, D]`` or ``[B, L, D]``, the blocks' modulation rows ``[B, 6, D]`` or
        ``[B, L, 6, D]``, and the projected text ``[B, T, D]``, behind the image's tokens where there are any.
    """
    per_token = timestep.shape[1] if timestep.ndim == 2 else None
    time, rows, text, image = _any(transformer).condition_embedder(
        timestep.flatten(), text_BTD, image_BID, timestep_seq_len=per_token
    )
    return time, rows.unflatten(-1, (6, -1)), text if image is None else torch.cat([image, text], dim=1)


def run_blocks(
    transformer: WanTransformer3DModel, hidden_BLD: Tensor, text_BTD: Tensor, rows: Any, rotary: Any, unit: int = 1
) -> Tensor:
    """All blocks in turn, checkpointed where the transformer is so.

    Where processes share the transformer, each runs them on its own part of the tokens; the result is all tokens.

    Args:
        text_BTD, rows: of :func:`modulation`; or rows as the method's own blocks take them.
        rotary: the pair ``(cos, sin)``, each ``[1 or B, L, 1 or heads, E]``; or a list of pairs, one a block; or a
            function that makes the pair of a block from its index, just before it runs.
        unit: tokens that stay together, such as a frame's, where each frame is worked on as a whole.
    """
    split = split_of(transformer)
    if split is None:
        return _run(transformer, hidden_BLD, text_BTD, rows, rotary)
    return split.run(partial(_run, transformer), hidden_BLD, text_BTD, rows, partial(_of_block, rotary), unit)


def _of_block(rotary: Any, index: int) -> Any:
    return rotary[index] if isinstance(rotary, list) else rotary(index) if callable(rotary) else rotary


def _run(transformer: WanTransformer3DModel, hidden_BLD: Tensor, text_BTD: Tensor, rows: Tensor, rotary: Any) -> Tensor:
    if torch.is_grad_enabled() and is_compiled(transformer):
        # Tokens before the first block have no gradient, those behind it do: the compiler would make two of each graph.
        hidden_BLD.requires_grad_()
    checkpointed = torch.is_grad_enabled() and transformer.gradient_checkpointing
    taps = vars(transformer).get(TAPS, ())
    for index, block in enumerate(transformer.blocks):
        own = _of_block(rotary, index)
        if checkpointed:
            hidden_BLD = transformer._gradient_checkpointing_func(block, hidden_BLD, text_BTD, rows, own)
        else:
            hidden_BLD = block(hidden_BLD, text_BTD, rows, own)
        for outputs in taps:
            if index in outputs:
                outputs[index] = hidden_BLD
    return hidden_BLD


def unembed(transformer: WanTransformer3DModel, hidden_BLD: Tensor, time: Tensor, shape: torch.Size) -> Tensor:
    """The last layer: tokens to a velocity ``[B, C', F, H, W]`` on the grid of latents of ``shape``.

    Args:
        time: the embedded timestep of :func:`modulation`, of these tokens.
    """
    table = transformer.scale_shift_table.to(time.device)
    if time.ndim == 3:
        table = table.unsqueeze(0)
    parts = (table + time.unsqueeze(-2)).chunk(2, dim=-2)
    shift, scale = ((part if time.ndim == 2 else part.squeeze(-2)).to(hidden_BLD.device) for part in parts)
    own = _any(transformer)
    normed_BLD = (own.norm_out(hidden_BLD.float()) * (1 + scale) + shift).type_as(hidden_BLD)
    return unpatch(own.proj_out(normed_BLD), shape, own.config.patch_size)


def unpatch(x_BLP: Tensor, shape: torch.Size, patch: tuple[int, int, int]) -> Tensor:
    """Values of tokens, as the transformer's last layer orders them, on the grid of latents of ``shape``."""
    sizes = [size // side for size, side in zip(shape[2:], patch, strict=True)]
    x = x_BLP.reshape(len(x_BLP), *sizes, *patch, -1).permute(0, 7, 1, 4, 2, 5, 3, 6)
    return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)


def pass_bytes(transformer: WanTransformer3DModel, tokens: int) -> int:
    """Peak bytes of activations of a pass without gradients, from above; most of them in a block's feed-forward."""
    own: Any = transformer.config
    values = WORK_WIDTHS * own.num_attention_heads * own.attention_head_dim + WORK_HIDDEN * own.ffn_dim
    return tokens * values * _any(transformer).patch_embedding.weight.element_size()


@contextlib.contextmanager
def tapped(transformer: WanTransformer3DModel, blocks: Sequence[int]) -> Iterator[dict[int, Any]]:
    """Inside, the outputs ``[B, L, D]`` of these blocks in the latest pass that :func:`run_blocks` ran, by index.

    No hooks, which the compiler does not take.
    """
    before: tuple[dict[int, Any], ...] = vars(transformer).get(TAPS, ())
    outputs: dict[int, Any] = dict.fromkeys(blocks)
    transformer.__dict__[TAPS] = (*before, outputs)
    try:
        yield outputs
    finally:
        transformer.__dict__[TAPS] = before


def open_forward(transformer: WanTransformer3DModel) -> None:
    """Let the transformer's forward pass run a method's, by :func:`run_inside`.

    Raises:
        RuntimeError: it is open already: another method is installed.
    """
    if is_open(transformer):
        raise RuntimeError("this transformer is adapted already; uninstall the other method first")
    # Bound, so that a copy of the transformer runs the copy.
    transformer.forward = types.MethodType(_forward, transformer)
    transformer.__dict__["_is_open"] = True


def close_forward(transformer: WanTransformer3DModel) -> None:
    """Undo :func:`open_forward`."""
    del transformer.__dict__["_is_open"]
    if getattr(vars(transformer).get("forward"), "__func__", None) is _forward:  # offloading may have wrapped it
        del transformer.forward


def is_open(transformer: WanTransformer3DModel) -> bool:
    """Whether a method is installed. The forward pass itself does not tell: offloading wraps it."""
    return "_is_open" in vars(transformer)


def is_compiled(transformer: WanTransformer3DModel) -> bool:
    """Whether the blocks are compiled, by :func:`imvideoedit.wan.kernels.compile_blocks`."""
    return COMPILED in vars(transformer)


def _forward(self: Any, *args: Any, run: Callable[..., Any] | None = None, **options: Any) -> Any:
    """The stock forward pass, or that of a method.

    Raises:
        RuntimeError: it is the stock one, and processes share the transformer: each would run all of its tokens.
    """
    if run is None and split_of(self) is not None:
        raise RuntimeError("processes share this transformer; call denoise() or run_blocks()")
    return type(self).forward(self, *args, **options) if run is None else run(self, *args)


def _any(module: nn.Module) -> Any:
    """The module for the type checker, which does not see diffusers' attributes."""
    return module
