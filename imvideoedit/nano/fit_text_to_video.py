"""Pretraining, second stage: text-to-video by flow matching, on images and videos, with the text encoder."""

from typing import Any

import lightning
import torch
from torch import Tensor

from imvideoedit.flow.matching import FlowMatching, PathPoint
from imvideoedit.flow.solvers import shift_sigma
from imvideoedit.nano.readouts import Readouts
from imvideoedit.nano.scene_batches import WorldBatches
from imvideoedit.training.optimizers import MuonWithAdamW
from imvideoedit.wan.backbone import Backbone
from imvideoedit.wan.forward import denoise_in_parts, tapped
from imvideoedit.wan.kernels import suited_kernel

PLAIN = (0.8, 0.3)  # fractions of plain scenes at the first and the last step, as a curriculum


def stratified_point(latents_BCFHW: Tensor, shift: float, seed: int) -> tuple[PathPoint, Tensor]:
    """Noisy latents with their velocities, and the noise levels: stratified, for less noise in the gradient."""
    generator = torch.Generator().manual_seed(seed)
    count = len(latents_BCFHW)
    sigma_B = shift_sigma((torch.rand(count, generator=generator) + torch.arange(count)) / count, shift)
    noise_BCFHW = torch.randn(latents_BCFHW.shape, generator=generator)
    return FlowMatching.path(latents_BCFHW, noise_BCFHW, sigma_B), sigma_B


class TextToVideoFit(lightning.LightningModule):
    """Flow matching (Eq. 1-3 without a source) of transformer and text encoder, with readouts.

    A Lightning callback averages the weights.
    """

    text_encoder: Any
    tokenizer: Any

    def __init__(self, backbone: Backbone, steps: int, lr: float, shapes: list, seed: int) -> None:
        super().__init__()
        self.backbone, self.steps, self.lr, self.shapes, self.seed = backbone, steps, lr, shapes, seed
        self.transformer, self.text_encoder = backbone.transformer, backbone.text_encoder
        self.tokenizer = backbone.tokenizer
        self.readouts = Readouts(self.transformer)
        for part in (self.transformer, self.text_encoder):
            part.requires_grad_(True).train()

    def training_step(self, batch: dict, batch_index: int) -> Tensor:
        with torch.no_grad():
            latents = self.backbone.encode_video(batch["video"])
        place = self.global_step * self.trainer.world_size + self.global_rank
        point, sigma_B = stratified_point(latents, self.backbone.shift, self.seed + place)
        text = self._embed(batch["text"])
        with suited_kernel(self.transformer, latents), tapped(self.transformer, self.readouts.taps) as outputs:
            velocity = denoise_in_parts(self.transformer, point.x_BCFHW, sigma_B, text)
        loss = FlowMatching.loss(velocity, point.velocity_BCFHW).mean()
        self.log(f"t2v/loss_{batch['video'].shape[2]}f", loss, prog_bar=True)
        of_content = self.readouts.losses({"content": batch["labels"]}, outputs)
        readings = {name: loss_B.mean() for name, loss_B in of_content.items()}
        self.log_dict({f"t2v/{name}": reading for name, reading in readings.items()})
        return loss + torch.stack(list(readings.values())).sum()

    def _embed(self, captions: list[str]) -> Tensor:
        """As ``Backbone.encode_text``, with gradients: ``[B, T, D]``, zeros after each text's end."""
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        tokens = tokens.to(self.device)
        text = self.text_encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
        return text * tokens.attention_mask[..., None]

    def configure_optimizers(self):
        blocks = list(self.transformer.blocks.parameters())
        inner = {id(p) for p in blocks}
        optimizer = MuonWithAdamW(blocks, self.lr, plain=[p for p in self.parameters() if id(p) not in inner])
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1, (step + 1) / 200) * max(1 - step / self.steps, 0.0) ** 0.5
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self):
        start, ranks = self.trainer.global_step, self.trainer.world_size
        return WorldBatches(self.seed, self.steps, self.shapes, start, ranks, PLAIN).loader()
