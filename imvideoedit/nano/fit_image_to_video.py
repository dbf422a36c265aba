"""Pretraining, image to video: the text-to-video transformer with further input channels, by flow matching.

The channels are those of Wan's image-to-video models: the noise, a mask that is 1 where the video is given, and the
latents of the video with grey elsewhere.
"""

import lightning
import torch
from torch import Tensor

from imvideoedit.flow.matching import FlowMatching
from imvideoedit.methods.image_condition import condition_channels
from imvideoedit.nano.fit_text_to_video import stratified_point
from imvideoedit.nano.image_to_video_batches import ImageToVideoBatches
from imvideoedit.training.optimizers import MuonWithAdamW
from imvideoedit.wan.backbone import Backbone
from imvideoedit.wan.kernels import suited_kernel


class ImageToVideoFit(lightning.LightningModule):
    """Flow matching of the whole widened transformer; autoencoder and text encoder stay as they are.

    Args:
        backbone: whose transformer is a :func:`imvideoedit.wan.image_to_video.widen` made.
    """

    def __init__(self, backbone: Backbone, steps: int, lr: float, shapes: list, seed: int) -> None:
        super().__init__()
        self.backbone, self.steps, self.lr, self.shapes, self.seed = backbone, steps, lr, shapes, seed
        self.transformer = backbone.transformer.requires_grad_(True).train()

    def training_step(self, batch: dict, batch_index: int) -> Tensor:
        with torch.no_grad():
            latents, masked = self.backbone.encode_video(torch.cat([batch["video"], batch["masked"]])).chunk(2)
            text = self.backbone.encode_text(batch["text"])
        frames = latents.shape[2]
        channels = condition_channels(batch["mask"], masked, masked[:, :, :1] if frames > 1 else None)
        place = self.global_step * self.trainer.world_size + self.global_rank
        point, sigma_B = stratified_point(latents, self.backbone.shift, self.seed + place)
        with suited_kernel(self.transformer, latents):
            x = torch.cat([point.x_BCFHW, channels], dim=1)
            velocity = self.transformer(x, 1000 * sigma_B, text, return_dict=False)[0]
        loss = FlowMatching.loss(velocity, point.velocity_BCFHW).mean()
        self.log(f"i2v/loss_{batch['video'].shape[2]}f", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        blocks = list(self.transformer.blocks.parameters())
        inner = {id(p) for p in blocks}
        optimizer = MuonWithAdamW(blocks, self.lr, plain=[p for p in self.parameters() if id(p) not in inner])
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1, (step + 1) / 50) * max(1 - step / self.steps, 0.0)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self):
        start, ranks = self.trainer.global_step, self.trainer.world_size
        return ImageToVideoBatches(self.seed, self.steps, self.shapes, start, ranks).loader()
