"""Pretraining, image to video: the text-to-video transformer with further input channels, by flow matching.

The channels are those of Wan's image-to-video models: the noise, a mask that is 1 where the video is given, and the
latents of the video with grey elsewhere. Their columns of the patch embedding are trained, and low-rank deltas on all
linear maps of the blocks, which are added to the weights at the end: with batches that a CPU can take, training the
weights themselves unlearned more than it taught.
"""

from typing import Any

import lightning
import torch
from torch import Tensor

from imvideoedit.edit_batch import EditBatch
from imvideoedit.flow.matching import FlowMatching
from imvideoedit.methods.lora_edit import LoraEdit
from imvideoedit.nano.fit_text_to_video import stratified_point
from imvideoedit.nano.image_to_video_batches import ImageToVideoBatches
from imvideoedit.training.optimizers import MuonWithAdamW
from imvideoedit.wan.backbone import Backbone
from imvideoedit.wan.kernels import suited_kernel

WARMUP = 20  # steps


class ImageToVideoFit(lightning.LightningModule):
    """Flow matching of deltas and columns; autoencoder, text encoder and the rest of the transformer stay.

    Args:
        backbone: whose transformer :func:`imvideoedit.wan.image_to_video.widen` made.
        rank: of the deltas.
    """

    def __init__(self, backbone: Backbone, steps: int, lr: float, shapes: list, seed: int, rank: int) -> None:
        super().__init__()
        self.backbone, self.steps, self.lr, self.shapes, self.seed = backbone, steps, lr, shapes, seed
        self.method = LoraEdit(rank, "release")
        self.method.install(backbone.transformer)
        self.embedding = backbone.transformer.patch_embedding.weight.requires_grad_(True)
        self.embedding.register_hook(self._of_new_columns)

    def training_step(self, batch: dict, batch_index: int) -> Tensor:
        with torch.no_grad():
            latents, masked = self.backbone.encode_video(torch.cat([batch["video"], batch["masked"]])).chunk(2)
            text = self.backbone.encode_text(batch["text"])
        conditions = {"mask": batch["mask"], "masked_video": masked}
        if latents.shape[2] > 1:
            conditions["first_frame"] = masked[:, :, :1]
        place = self.global_step * self.trainer.world_size + self.global_rank
        point, sigma_B = stratified_point(latents, self.backbone.shift, self.seed + place)
        with suited_kernel(self.backbone.transformer, latents):
            edit = EditBatch(latents, latents, text, conditions)
            velocity = self.method.velocity(self.backbone.transformer, edit)(point.x_BCFHW, sigma_B)
        loss = FlowMatching.loss(velocity, point.velocity_BCFHW).mean()
        self.log(f"i2v/loss_{batch['video'].shape[2]}f", loss, prog_bar=True)
        return loss

    @torch.no_grad()
    def merge(self) -> None:
        """Add the deltas to the transformer's weights."""
        deltas_of: list[Any] = list(self.method.lora)
        for block, lora in zip(self.backbone.transformer.blocks, deltas_of, strict=True):
            for name, linear in block.named_modules():
                if (key := name.replace(".", "_")) in lora.deltas:
                    delta = lora.deltas[key]
                    linear.weight += delta.up.weight @ delta.down.weight
        self.method.uninstall()

    def configure_optimizers(self):
        optimizer = MuonWithAdamW(self.method.parameters(), self.lr, weight_decay=0.0, plain=[self.embedding])
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1, (step + 1) / WARMUP) * max(1 - step / self.steps, 0.0)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self):
        start, ranks = self.trainer.global_step, self.trainer.world_size
        return ImageToVideoBatches(self.seed, self.steps, self.shapes, start, ranks).loader()

    def _of_new_columns(self, gradient: Tensor) -> Tensor:
        """The gradient without that of the text-to-video model's own columns."""
        own = self.backbone.transformer.config.out_channels
        return torch.cat([torch.zeros_like(gradient[:, :own]), gradient[:, own:]], dim=1)
