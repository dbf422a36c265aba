"""Autoencoders a few frames at a time, so that a video's pixels need not fit into memory.

A causal autoencoder's latent frame depends on earlier frames only; their state is carried from part to part, so latents
and pixels equal those of the complete video.

Shapes: B batch, C channels, F frames, H W pixels or latent pixels.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from imvideoedit.wan.patch_autoencoder import NanoAutoencoder


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
    # As AutoencoderKLWan.encode, which would keep all latents until the end.
    vae.clear_cache()
    try:
        for x_BCFHW in groups:
            out = vae.encoder(x_BCFHW, feat_cache=vae._enc_feat_map, feat_idx=[0])
            yield vae.quant_conv(out)[:, : vae.config.z_dim]
    finally:
        vae.clear_cache()


def decode_parts(vae: Any, parts_BCFHW: Iterable[Tensor]) -> Iterator[Tensor]:
    """Pixels, in [-1, 1], of raw latents that come in parts; as for the complete video."""
    parts = iter(parts_BCFHW)
    if isinstance(vae, NanoAutoencoder):
        yield vae.decode(next(parts)).sample.clamp(-1, 1)
        for z_BCFHW in parts:
            yield vae.decode_groups(z_BCFHW).clamp(-1, 1)
        return
    vae.clear_cache()
    try:
        for index, z_BCFHW in enumerate(_split(parts, 1)):
            start: dict[str, Any] = {"first_chunk": True} if index == 0 else {}
            x_BCFHW = vae.post_quant_conv(z_BCFHW)
            yield vae.decoder(x_BCFHW, feat_cache=vae._feat_map, feat_idx=[0], **start).clamp(-1, 1)
    finally:
        vae.clear_cache()


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
