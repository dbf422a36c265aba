"""Autoencoders a few frames at a time, so that a video's pixels need not fit into memory.

A causal autoencoder's latent frame depends on earlier frames only; their state is carried from part to part, so latents
and pixels equal those of the complete video. After ``vae.enable_tiling()`` frames are worked on in tiles, too.

Shapes: B batch, C channels, F frames, H W pixels or latent pixels.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import patchify, unpatchify
from torch import Tensor

from imvideoedit.wan.patch_autoencoder import NanoAutoencoder
from imvideoedit.wan.tiled_vae import InTiles, decoding_tiles, encoding_tiles

# Peak of encoding or decoding, in values for each pixel of a frame: of Wan2.1's and 2.2's base width each; of nano.
WAN_VALUES, RESIDUAL_VALUES, NANO_VALUES = 56, 95, 150


def encode_parts(vae: Any, parts_BCFHW: Iterable[Tensor]) -> Iterator[Tensor]:
    """Raw latents of a video that comes in parts.

    Args:
        vae: ``AutoencoderKLWan`` or ``NanoAutoencoder``; a group is its ``scale_factor_temporal`` frames.
        parts_BCFHW: the first has one frame and complete groups, the others complete groups; in [-1, 1].

    Returns:
        The mode of the posterior of each part, ``[B, z, F', H', W']``, as for the complete video.
    """
    parts = iter(parts_BCFHW)
    if isinstance(vae, NanoAutoencoder):
        yield vae.encode(next(parts)).latent_dist.mode()
        yield from map(vae.encode_groups, parts)
        return
    group = vae.config.scale_factor_temporal
    first = next(parts)
    groups = chain([first[:, :, :1]], _split(chain([first[:, :, 1:]], parts), group))
    run: Any = None
    for x_BCFHW in groups:
        run = run or _encoder(vae, *x_BCFHW.shape[3:])
        # Of Wan2.2's, squares of pixels are channels.
        yield run(patchify(x_BCFHW, vae.config.patch_size or 1))[:, : vae.config.z_dim]


def decode_parts(vae: Any, parts_BCFHW: Iterable[Tensor]) -> Iterator[Tensor]:
    """Pixels, in [-1, 1], of raw latents that come in parts; as for the complete video."""
    parts = iter(parts_BCFHW)
    if isinstance(vae, NanoAutoencoder):
        yield vae.decode(next(parts)).sample.clamp(-1, 1)
        for z_BCFHW in parts:
            yield vae.decode_groups(z_BCFHW).clamp(-1, 1)
        return
    run: Any = None
    for index, z_BCFHW in enumerate(_split(parts, 1)):
        run = run or _decoder(vae, *z_BCFHW.shape[3:])
        start: dict[str, Any] = {"first_chunk": True} if index == 0 else {}
        yield unpatchify(run(z_BCFHW, **start), vae.config.patch_size or 1).clamp(-1, 1)


def _encoder(vae: Any, height: int, width: int) -> Callable[..., Tensor]:
    """As ``AutoencoderKLWan.encode``, which would keep all latents until the end: a group at each call."""

    def run(x_BCFHW: Tensor, state: list[Any]) -> Tensor:
        return vae.quant_conv(vae.encoder(x_BCFHW, feat_cache=state, feat_idx=[0]))

    tiling, states = encoding_tiles(vae, height, width), vae._cached_conv_counts["encoder"]
    if tiling is None:
        return partial(run, state=[None] * states)
    scale = (vae.config.patch_size or 1) / vae.config.scale_factor_spatial
    return InTiles(vae, tiling, run, states, scale)


def _decoder(vae: Any, height: int, width: int) -> Callable[..., Tensor]:
    """As ``AutoencoderKLWan.decode``: a latent frame at each call."""

    def run(z_BCFHW: Tensor, state: list[Any], **start: Any) -> Tensor:
        return vae.decoder(vae.post_quant_conv(z_BCFHW), feat_cache=state, feat_idx=[0], **start)

    tiling, states = decoding_tiles(vae, height, width), vae._cached_conv_counts["decoder"]
    if tiling is None:
        return partial(run, state=[None] * states)
    return InTiles(vae, tiling, run, states, vae.config.scale_factor_spatial / (vae.config.patch_size or 1))


def _split(parts_BCFHW: Iterable[Tensor], frames: int) -> Iterator[Tensor]:
    for part in parts_BCFHW:
        yield from torch.split(part, frames, dim=2) if part.shape[2] else ()


def without_gradient(items: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield items that are computed without a gradient; the consumer's gradient mode is not affected."""
    source = iter(items)
    while True:
        with torch.no_grad():
            item = next(source, None)
        if item is None:
            return
        yield item


def coding_bytes(vae: Any, pixels: int) -> int:
    """Peak bytes of activations and carried states of encoding and of decoding, from above.

    Args:
        pixels: of a frame.
    """
    item = next(vae.parameters()).element_size()
    if isinstance(vae, NanoAutoencoder):
        return NANO_VALUES * pixels * item
    width = getattr(vae.config, "decoder_base_dim", None) or vae.config.base_dim
    values = RESIDUAL_VALUES if vae.config.is_residual else WAN_VALUES
    return values * width * pixels // (vae.config.patch_size or 1) ** 2 * item
