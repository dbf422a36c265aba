"""A method that asks for all that the contract offers, so that tests see the core serve it without a change."""

from dataclasses import replace
from functools import partial

import torch
from torch import nn

from imvideoedit.edit_batch import Input
from imvideoedit.flow.matching import PathPoint
from imvideoedit.methods.base import Method
from imvideoedit.wan.forward import arguments, embed, modulation, run_blocks, run_inside, unembed, widen_patch_embedding

TOKENS = 2  # of its own: mean and spread of the target


class Toy(Method):
    """Two tokens before the video's, at half its timestep; source, first frame and mask as further input channels."""

    name = "toy"
    inputs = (Input("first_frame", "image", from_target=True), Input("mask", "mask"))

    def __init__(self, scale: float = 1.0, objective=None):
        super().__init__(objective)
        self.scale = scale

    def config(self):
        return {"scale": self.scale}

    def build(self, transformer, dtype):
        channels, width = transformer.config.out_channels, transformer.patch_embedding.out_channels
        where = {"device": transformer.patch_embedding.weight.device, "dtype": dtype}
        self.columns = widen_patch_embedding(transformer, 2 * channels + 1, dtype)
        self.read, self.write = nn.Linear(channels, width, False, **where), nn.Linear(width, channels, **where)
        nn.init.zeros_(self.read.weight)

    def velocity(self, transformer, batch, known=None):
        shape = batch.source_BCFHW.shape
        first = nn.functional.pad(batch.conditions["first_frame"], (0, 0, 0, 0, 0, shape[2] - 1))
        more = torch.cat([batch.source_BCFHW, first, nn.functional.interpolate(batch.conditions["mask"], shape[2:])], 1)

        def velocity(state, sigma_B):
            count = state["video"][0, 0].numel() // torch.Size(transformer.config.patch_size).numel()
            share_L = torch.tensor([0.5] * TOKENS + [1.0] * count, device=sigma_B.device)
            taken = arguments(transformer, state["video"], sigma_B[:, None] * share_L, batch.text_BTD)
            return run_inside(transformer, partial(self._run, self.scale * more, state["tokens"]), *taken)

        return velocity

    def _run(self, more, tokens, transformer, x_BCFHW, timestep, text_BTD):
        time, rows, text_BTD = modulation(transformer, timestep, text_BTD)
        video = embed(transformer, x_BCFHW, self.columns, more.to(self.columns.weight.dtype))
        own = self.read(tokens.to(self.read.weight.dtype)).to(video.dtype)
        cos, sin = transformer.rope(x_BCFHW)
        rotary = torch.cat([torch.ones_like(cos[:, :TOKENS]), cos], 1), torch.cat([0 * sin[:, :TOKENS], sin], 1)
        hidden = run_blocks(transformer, torch.cat([own, video], 1), text_BTD, rows, rotary)
        v_BCFHW = unembed(transformer, hidden[:, TOKENS:], time[:, TOKENS:], x_BCFHW.shape)
        return {"video": v_BCFHW.float(), "tokens": self.write(hidden[:, :TOKENS].to(self.write.weight.dtype)).float()}

    def initial(self, batch, generator):
        tokens = torch.randn(len(batch.source_BCFHW), TOKENS, batch.source_BCFHW.shape[1], generator=generator)
        return {"video": super().initial(batch, generator), "tokens": tokens.to(batch.source_BCFHW)}

    def branches(self, transformer, batch, known):
        nothing = {name: torch.zeros_like(value) for name, value in batch.conditions.items()}
        bare = replace(batch, source_BCFHW=torch.zeros_like(batch.source_BCFHW), conditions=nothing)
        return super().branches(transformer, batch, known) | {"without_source": self.velocity(transformer, bare)}

    def training_point(self, batch, generator=None, sigma_B=None):
        target = batch.target_BCFHW.float()
        clean = {"video": target, "tokens": torch.stack([target.mean((2, 3, 4)), target.std((2, 3, 4))], 1)}
        noise = self.initial(batch, generator)
        sigma_B = self.objective.sample_sigma(len(target), generator, target.device) if sigma_B is None else sigma_B
        mixed = {name: x.lerp(noise[name], sigma_B.reshape(-1, *[1] * (x.ndim - 1))) for name, x in clean.items()}
        return PathPoint(mixed, {name: noise[name] - x for name, x in clean.items()}), sigma_B, None

    def losses_at(self, transformer, batch, point, sigma_B, weights=None):
        v = self.velocity(transformer, batch)(point.x_BCFHW, sigma_B)
        errors = {name: (v[name] - u).square().flatten(1).mean(1) for name, u in point.velocity_BCFHW.items()}
        return {"flow_matching": errors["video"], "tokens": errors["tokens"]}
