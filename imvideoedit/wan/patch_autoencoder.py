"""The nano world's autoencoder: Wan's interface and time geometry, small enough to fit on two CPU cores.

It stands in for ``AutoencoderKLWan``, which came nowhere near the quality needed in the time a CPU allows
(measured: 17.7 dB after three minutes on two cores; the closed form below starts at 29 dB).

Geometry: the first frame alone, then groups of four, so F = 4k+1 frames become F' = k+1 latent frames; every
``patch`` × ``patch`` square of a group becomes one latent pixel. The first frame is encoded as a group without
motion: a still image and a still clip therefore have the same latent, so what is learnt on images holds in videos.
Each latent frame is encoded independently; temporal coherence comes from the transformer.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class PointPosterior:
    """A posterior without variance: ``mode`` and ``sample`` give the same latents."""

    latents_BCFHW: Tensor

    def mode(self) -> Tensor:
        return self.latents_BCFHW

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.latents_BCFHW


def _silence(conv: nn.Conv2d) -> None:
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)


class ConvBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))), an identity at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        _silence(self.conv2)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW + self.conv2(functional.silu(self.conv1(functional.silu(x_NCHW))))


class NanoAutoencoder(ModelMixin, ConfigMixin):
    """A linear map (fitted in closed form) plus a small convolutional correction, each way.

    Args:
        z_dim: latent channels.
        patch: pixels of a latent pixel's side; ``scale_factor_spatial`` in the config equals it.
        width, encoder_blocks, decoder_blocks: size of the corrections.
        latents_mean, latents_std: per-channel statistics of the latents of the training world.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        z_dim: int = 16,
        patch: int = 4,
        width: int = 128,
        encoder_blocks: int = 2,
        decoder_blocks: int = 4,
        scale_factor_spatial: int = 4,
        scale_factor_temporal: int = 4,
        latents_mean: list[float] | None = None,
        latents_std: list[float] | None = None,
    ) -> None:
        super().__init__()
        if scale_factor_spatial != patch:
            raise ValueError(f"scale_factor_spatial ({scale_factor_spatial}) must equal patch ({patch})")
        inputs = 3 * scale_factor_temporal * patch * patch
        self.linear_in = nn.Conv2d(inputs, z_dim, 1)
        self.linear_out = nn.Conv2d(z_dim, inputs, 1)
        self.encoder = self._correction(inputs, width, encoder_blocks, z_dim)
        self.decoder = self._correction(z_dim, width, decoder_blocks, inputs)

    @staticmethod
    def _correction(inputs: int, width: int, blocks: int, outputs: int) -> nn.Sequential:
        last = nn.Conv2d(width, outputs, 1)
        _silence(last)
        first = nn.Conv2d(inputs, width, 3, padding=1)
        return nn.Sequential(first, *(ConvBlock(width) for _ in range(blocks)), nn.SiLU(), last)

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """Video ``[B, 3, F, H, W]`` in [-1, 1], F = 4k+1, H and W divisible by ``patch``, to ``[B, z, F', H', W']``."""
        frames, group = x.shape[2], self.config.scale_factor_temporal
        if frames % group != 1:
            raise ValueError(f"got {frames} frames; the autoencoder takes {group}k + 1")
        posterior = PointPosterior(self.encode_groups(self._with_full_start(x)))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(self, z: Tensor, return_dict: bool = True) -> Any:
        """Latents ``[B, z, F', H', W']`` to video ``[B, 3, 4(F'-1)+1, H, W]``."""
        video, group = self.decode_groups(z), self.config.scale_factor_temporal
        video = torch.cat([video[:, :, :group].mean(2, keepdim=True), video[:, :, group:]], dim=2)
        return DecoderOutput(sample=video) if return_dict else (video,)

    def encode_groups(self, x: Tensor) -> Tensor:
        """Groups of four frames ``[B, 3, 4k, H, W]``, each independently, to ``[B, z, k, H', W']``."""
        blocks = self._fold(x)
        latents = self.linear_in(blocks) + self.encoder(blocks)
        return latents.unflatten(0, (x.shape[0], -1)).transpose(1, 2)

    def decode_groups(self, z: Tensor) -> Tensor:
        """Inverse of :meth:`encode_groups`."""
        flat = z.transpose(1, 2).flatten(0, 1)
        return self._unfold(self.linear_out(flat) + self.decoder(flat), z.shape[0])

    def _with_full_start(self, x: Tensor) -> Tensor:
        """The first frame as a group without motion."""
        return torch.cat([x[:, :, :1].expand(-1, -1, self.config.scale_factor_temporal, -1, -1), x[:, :, 1:]], dim=2)

    def _fold(self, x: Tensor) -> Tensor:
        """``[B, 3, 4k, H, W]`` to ``[B·k, 3·4·p·p, H/p, W/p]``."""
        group = self.config.scale_factor_temporal
        x = x.unflatten(2, (-1, group)).transpose(1, 2).flatten(0, 1).flatten(1, 2)
        return functional.pixel_unshuffle(x, self.config.patch)

    def _unfold(self, x: Tensor, batch: int) -> Tensor:
        group = self.config.scale_factor_temporal
        x = functional.pixel_shuffle(x, self.config.patch)
        return x.unflatten(0, (batch, -1)).unflatten(2, (3, group)).transpose(1, 2).flatten(2, 3)

    @torch.no_grad()
    def weigh_channels(self) -> None:
        """Rescale every latent channel by its effect on pixels (the norm of its column of the linear decoder).

        Round trips do not change, but equal errors in the latents are then about equal errors in pixels, so that a
        model of the latents spends its capacity on what is visible.
        """
        norm_Z = self.linear_out.weight.flatten(1).norm(dim=0)
        into: tuple[Any, ...] = (self.linear_in, self.encoder[-1])
        out_of: tuple[Any, ...] = (self.linear_out, self.decoder[0])
        for conv in into:
            conv.weight.mul_(norm_Z[:, None, None, None])
            conv.bias.mul_(norm_Z)
        for conv in out_of:
            conv.weight.div_(norm_Z[None, :, None, None])

    @torch.no_grad()
    def fit_linear(self, videos_BCFHW: Tensor) -> None:
        """Set the linear maps to the principal components of ``videos``' blocks, whitened (closed form)."""
        rows = self._fold(self._with_full_start(videos_BCFHW)).transpose(0, 1).flatten(1).T.double()
        mean = rows.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov(rows.T))
        z_dim = self.config.z_dim
        values, vectors = values.flip(0)[:z_dim], vectors.flip(1)[:, :z_dim]
        into, back = vectors / values.sqrt(), vectors * values.sqrt()
        for conv, weight, bias in ((self.linear_in, into.T, -(mean @ into)), (self.linear_out, back, mean)):
            conv.load_state_dict({"weight": weight[..., None, None], "bias": bias})
