"""Tiny random models of the published bases' real classes, as folders of diffusers."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    WanAnimateTransformer3DModel,
    WanPipeline,
    WanTransformer3DModel,
    WanVACETransformer3DModel,
)

from tests.conftest import TINY_TRANSFORMER, text_encoder, tiny_transformer, word_tokenizer

CHANNELS = 6  # of latents of the tiny Wan2.2 5B, in place of 48


def autoencoder_22(seed: int = 0) -> AutoencoderKLWan:
    """Wan2.2 5B's: squares of pixels as channels, residual, 16 pixels of a latent pixel's side."""
    torch.manual_seed(seed)
    statistics = {"latents_mean": [0.1 * n for n in range(CHANNELS)], "latents_std": [1.0 + n for n in range(CHANNELS)]}
    return AutoencoderKLWan(
        base_dim=4,
        decoder_base_dim=8,
        z_dim=CHANNELS,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=1,
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
        **statistics,
    ).eval()


def save_pipeline(folder: Path, transformer: WanTransformer3DModel, vae: AutoencoderKLWan, **how) -> Path:
    """A folder of diffusers' WanPipeline, whose scheduler takes Euler steps."""
    WanPipeline(
        tokenizer=word_tokenizer(),
        text_encoder=text_encoder(),
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=transformer,
        **how,
    ).save_pretrained(folder)
    return folder


def wan_22_5b(folder: Path, seed: int = 0) -> Path:
    """Wan2.2-TI2V-5B's classes and settings, tiny."""
    transformer = tiny_transformer(seed, in_channels=CHANNELS, out_channels=CHANNELS)
    return save_pipeline(folder, transformer, autoencoder_22(), expand_timesteps=True)


def other_class(kind: str) -> torch.nn.Module:
    """A tiny transformer of another class, as those of VACE and Animate."""
    torch.manual_seed(0)
    if kind == "VACE":
        return WanVACETransformer3DModel(**TINY_TRANSFORMER | {"vace_layers": [0], "vace_in_channels": 8})
    own = {name: value for name, value in TINY_TRANSFORMER.items() if name not in ("in_channels", "out_channels")}
    more = {"motion_encoder_channel_sizes": {str(2**n): 2 for n in range(2, 11)}, "motion_dim": 2}
    more |= {"motion_style_dim": 4, "motion_encoder_dim": 4, "motion_encoder_size": 8, "face_encoder_hidden_dim": 8}
    return WanAnimateTransformer3DModel(**own | more | {"in_channels": 12, "latent_channels": 4, "out_channels": 4})
