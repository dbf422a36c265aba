"""Pretraining, first stage: the autoencoder, from a closed-form initialisation."""

import lightning
import numpy as np
import torch
from torch import Tensor

from imvideoedit.nano.scene_batches import WorldBatches, videos
from imvideoedit.wan.patch_autoencoder import NanoAutoencoder
from imvideoedit.world.scenes import sample_scene

LATENT_NOISE = 0.03  # of the latents' unit standard deviation: makes the decoder robust to small errors of the sampler


class AutoencoderFit(lightning.LightningModule):
    """Mean squared error of encoding and decoding; the learning rate falls as the square root of the steps left."""

    def __init__(self, autoencoder: NanoAutoencoder, steps: int, lr: float, shapes: list, seed: int) -> None:
        super().__init__()
        self.autoencoder, self.steps, self.lr, self.shapes, self.seed = autoencoder, steps, lr, shapes, seed

    def training_step(self, batch: dict, batch_index: int) -> Tensor:
        video = batch["video"]
        latents = self.autoencoder.encode(video).latent_dist.mode()
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(self._place())).to(latents)
        rebuilt = self.autoencoder.decode(latents + LATENT_NOISE * noise).sample
        error = (rebuilt.float() - video).square().mean()
        self.log("autoencoder/psnr", 10 * torch.log10(4 / error), prog_bar=True)
        return error + 1e-4 * latents.float().square().mean()

    def _place(self) -> int:
        return self.global_step * self.trainer.world_size + self.global_rank

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.autoencoder.parameters(), self.lr, betas=(0.9, 0.98), weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1, (step + 1) / 100) * max(1 - step / self.steps, 0) ** 0.5
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self):
        start, ranks = self.trainer.global_step, self.trainer.world_size
        return WorldBatches(self.seed, self.steps, self.shapes, start, ranks).loader()


def fit_start(autoencoder: NanoAutoencoder, seed: int, clips: int) -> None:
    """The closed-form initialisation, from ``clips`` training clips of nine frames."""
    rng = np.random.default_rng((seed, 1 << 30))
    autoencoder.fit_linear(videos([sample_scene(rng, "train") for _ in range(clips)], 9))


@torch.no_grad()
def fit_statistics(autoencoder: NanoAutoencoder, seed: int, clips: int) -> None:
    """Weigh the latent channels, and write their mean and standard deviation in ``clips`` training clips, rounded up to
    twenties, into the config.

    All channels share one standard deviation: separate ones would undo the weights.
    """
    autoencoder.weigh_channels()
    rng = np.random.default_rng((seed, 2 << 30))
    parts = [videos([sample_scene(rng, "train") for _ in range(20)], 9) for _ in range(-(-clips // 20))]
    latents = torch.cat([autoencoder.encode(part).latent_dist.mode() for part in parts]).transpose(0, 1).flatten(1)
    spread = latents.std(1).square().mean().sqrt().item()
    autoencoder.register_to_config(latents_mean=latents.mean(1).tolist(), latents_std=[spread] * len(latents))


@torch.no_grad()
def round_trip_psnr(autoencoder: NanoAutoencoder, frames: int, seed: int = 7, clips: int = 40) -> float:
    """Mean PSNR (dB) of encoding and decoding test compositions."""
    rng = np.random.default_rng((seed, frames))
    scores = []
    for _ in range(clips):
        video = videos([sample_scene(rng, "test")], frames)
        rebuilt = autoencoder.decode(autoencoder.encode(video).latent_dist.mode()).sample.clamp(-1, 1)
        scores.append(10 * torch.log10(4 / (rebuilt - video).square().mean()).item())
    return float(np.mean(scores))
