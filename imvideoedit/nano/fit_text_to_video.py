"""Pretraining, second stage: text-to-video by flow matching, on images and videos, with the text encoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from imvideoedit.data.shards import ProcessInfo
from imvideoedit.flow.matching import FlowMatching, PathPoint
from imvideoedit.flow.solvers import shift_sigma
from imvideoedit.nano.batches import ENDLESS, StepSampler
from imvideoedit.nano.readouts import Readouts
from imvideoedit.nano.scene_pools import EncodedScenes, SceneBatches, ScenePool, encoded_scenes
from imvideoedit.training.optimizers import MuonWithAdamW
from imvideoedit.training.step_losses import check_whole_step, whole_step
from imvideoedit.training.stopping import time_share
from imvideoedit.wan.backbone import Backbone
from imvideoedit.wan.forward import denoise_in_parts, tapped
from imvideoedit.wan.kernels import suited_kernel


def stratified_point(latents_BCFHW: Tensor, shift: float, seed: int) -> tuple[PathPoint, Tensor]:
    """Noisy latents with their velocities (Eq. 2), and the noise levels: stratified, for less noise in the gradient."""
    device, count = latents_BCFHW.device, len(latents_BCFHW)
    generator = torch.Generator(device).manual_seed(seed)
    uniform_B = torch.rand(count, generator=generator, device=device) + torch.arange(count, device=device)
    sigma_B = shift_sigma(uniform_B / count, shift)
    noise_BCFHW = torch.randn(latents_BCFHW.shape, generator=generator, device=device)
    return FlowMatching.path(latents_BCFHW, noise_BCFHW, sigma_B), sigma_B


class TextToVideoFit(lightning.LightningModule):
    """Flow matching (Eq. 1-3 without a source) of transformer and text encoder, with readouts.

    The learning rate falls as the square root of what is left, of the steps or of the trainer's ``max_time``, whichever
    comes first. A Lightning callback averages the weights.

    Args:
        steps: until the end; None where the clock alone ends training.
        pools: of scenes, rendered and encoded before the first step.
        scenes: folder of the encoded scenes, for later runs.
        compiled: the losses of a step are one graph for each shape, on a GPU a CUDA graph; the first step of each shape
            takes a minute or more.
    """

    text_encoder: Any

    def __init__(
        self,
        backbone: Backbone,
        steps: int | None,
        lr: float,
        pools: Sequence[ScenePool],
        scenes: Path,
        seed: int,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.backbone, self.steps, self.lr, self.seed = backbone, steps, lr, seed
        self.pools, self.scenes, self.compiled = tuple(pools), scenes, compiled
        self.transformer, self.text_encoder = backbone.transformer, backbone.text_encoder
        assert backbone.tokenizer is not None
        self.padding = backbone.tokenizer.pad_token_id
        self.readouts = Readouts(self.transformer)
        self._encoded: list[tuple[ScenePool, EncodedScenes]] = []
        self._losses: Any = self._losses_at
        for part in (self.transformer, self.text_encoder):
            part.requires_grad_(True).train()

    def setup(self, stage: str) -> None:
        """Render and encode the pools that are missing, and keep them on the device; further calls change nothing."""
        trainer: Any = self.trainer
        device = trainer.strategy.root_device
        if self.compiled:
            check_whole_step(device, trainer.precision, "transformer.compile=true", "precision=32-true")
            self._losses = whole_step(self._losses_at, graphs=device.type == "cuda")
        if not self._encoded:
            # Drawn from on the device: no step waits for a copy.
            process = ProcessInfo(trainer.global_rank, trainer.world_size, trainer.strategy.barrier)
            vae: Any = self.backbone.vae
            vae.to(device)
            self._encoded = [
                (pool, encoded_scenes(self.scenes, self.backbone, pool, self.seed, process)) for pool in self.pools
            ]
            vae.cpu()

    def done(self, step: int) -> float:
        """Share of the training that is over before a step, in [0, 1]."""
        by_steps = 0.0 if self.steps is None else step / self.steps
        return min(max(by_steps, time_share(self.trainer)), 1.0)

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        latents = batch["latents"]
        place = self.global_step * self.trainer.world_size + self.global_rank
        point, sigma_B = stratified_point(latents, self.backbone.shift, self.seed + place)
        with suited_kernel(self.transformer, latents):
            noisy, velocity = point.x_BCFHW, point.velocity_BCFHW
            loss, readings = self._losses(noisy, velocity, sigma_B, batch["ids"], batch["labels"])
        frames = 4 * (latents.shape[2] - 1) + 1
        self.log(f"t2v/loss_{frames}f", loss.detach(), prog_bar=True)
        self.log_dict({f"t2v/{name}": reading.detach() for name, reading in readings.items()})
        return loss + torch.stack(list(readings.values())).sum()

    def _losses_at(
        self, noisy: Tensor, wanted: Tensor, sigma_B: Tensor, ids_BT: Tensor, labels: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of the velocity and those of the readouts: a function of tensors."""
        there_BT = (ids_BT != self.padding).long()
        # As ``Backbone.encode_text``, with gradients: zeros after each text's end.
        text = self.text_encoder(ids_BT, there_BT).last_hidden_state * there_BT[..., None]
        with tapped(self.transformer, self.readouts.taps) as outputs:
            velocity = denoise_in_parts(self.transformer, noisy, sigma_B, text)
        loss = (velocity.float() - wanted).square().mean()  # Eq. 3
        readings = self.readouts.losses({"content": labels}, outputs)
        return loss, {name: loss_B.mean() for name, loss_B in readings.items()}

    def configure_optimizers(self):
        blocks = list(self.transformer.blocks.parameters())
        inner = {id(p) for p in blocks}
        optimizer = MuonWithAdamW(blocks, self.lr, plain=[p for p in self.parameters() if id(p) not in inner])
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1, (step + 1) / 200) * (1 - self.done(step)) ** 0.5
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self):
        start, rank, ranks = self.trainer.global_step, self.trainer.global_rank, self.trainer.world_size
        sampler = StepSampler(self.steps or ENDLESS, start, rank, ranks)
        return DataLoader(SceneBatches(self._encoded, self.seed, self.done, ranks), batch_size=None, sampler=sampler)
