"""From noise to the latents of an edited video: windows, guidance, caching.

Shapes: B batch (one), C channels, F latent frames, H W latent pixels, T text tokens, D text width.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from diffusers import FirstBlockCacheConfig, WanTransformer3DModel
from torch import Tensor

from imvideoedit.edit_batch import EditBatch
from imvideoedit.editing.offload import free_bytes
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.editing.windows import blended, plan_windows
from imvideoedit.flow.guidance import guided
from imvideoedit.flow.matching import FlowMatching
from imvideoedit.flow.solvers import SOLVERS, Velocity, shifted_sigmas
from imvideoedit.methods.base import Method
from imvideoedit.wan.forward import denoise

KEPT_SHARE = 0.5  # of the free memory, for the source's features of all windows
Progress = Callable[[int, int], None]
"""Called with (passes done, passes in all): a pass for each window at each solver step."""
StepCallback = Callable[[Tensor, float, Tensor], None]
"""Called at each solver step with the video's state, noise level and velocity."""


@dataclass(frozen=True)
class Denoiser:
    """Samples edited latents with a method that is installed in a transformer.

    Args:
        transformer, method: frozen.
        shift: flow shift of the backbone, for a config that has none.
        group: frames of a latent frame, after the first.
    """

    transformer: WanTransformer3DModel
    method: Method
    shift: float
    group: int
    config: SamplingConfig

    @torch.no_grad()
    def __call__(
        self,
        batch: EditBatch,
        seed: int,
        progress: Progress | None = None,
        on_step: StepCallback | None = None,
    ) -> Tensor:
        """Edited latents of a source of any length.

        Args:
            batch: of one edit, without a target; with the empty text where there is guidance by the text.
            seed: of the noise.
        """
        config, source_BCFHW = self.config, batch.source_BCFHW
        sigmas = shifted_sigmas(config.steps, self.shift if config.shift is None else config.shift, config.strength)
        windows = windows_of(source_BCFHW.shape[2], config, self.group)
        batches = [replace(batch, source_BCFHW=source_BCFHW[:, :, window]) for window in windows]
        known = self._conditions(batches)
        parts = [
            partial(self._velocity, index, each, known and known[index], _lowest(sigmas, config))
            for index, each in enumerate(batches)
        ]
        velocity = blended(parts, windows, _counter(progress, config.steps * len(windows)))
        generator = torch.Generator().manual_seed(seed)
        noise_BCFHW = torch.randn(source_BCFHW.shape, generator=generator).to(source_BCFHW)
        start = FlowMatching.path(source_BCFHW, noise_BCFHW, sigmas[:1].to(noise_BCFHW.device))
        # Where the source is encoded anew at each step, its passes would be taken for further steps.
        with _first_block_cache(self.transformer, config.cache if known else 0.0):
            return SOLVERS[config.solver](_with_callback(velocity, on_step), start.x_BCFHW, sigmas)

    def _conditions(self, batches: Sequence[EditBatch]) -> list[Any] | None:
        """The method's condition of each window; None where they would not fit."""
        first = self.method.condition(self.transformer, batches[0])
        if first is None:
            return [None] * len(batches)
        room = KEPT_SHARE * free_bytes(batches[0].source_BCFHW.device)
        if len(batches) > 1 and first.nbytes * (len(batches) - 1) > room:
            return None
        conditions = [first, *(self.method.condition(self.transformer, batch) for batch in batches[1:])]
        for condition in conditions:
            condition.keep_prepared = first.prepared_nbytes * len(batches) <= room
        return conditions

    def _velocity(self, window: int, batch: EditBatch, known: Any, lowest: float, x_BCFHW: Tensor, sigma_B) -> Tensor:
        """Of one window; guidance down to the noise level ``lowest``."""
        if known is None:
            known = self.method.condition(self.transformer, batch)
        batches = [batch, *([batch.without_text()] if batch.empty_TD is not None else [])]
        branches = [self.method.velocity(self.transformer, each, known) for each in batches]
        branches.append(partial(_text_alone, self.transformer, batch.text_BTD))
        named = [
            _cached_by_name(self.transformer, f"window {window} branch {branch}", velocity)
            for branch, velocity in enumerate(branches)
        ]
        by_text = guided(named[0], named[-2], self.config.guidance, lowest)
        return guided(by_text, named[-1], self.config.source_guidance, lowest)(x_BCFHW, sigma_B)


def windows_of(latent_frames: int, config: SamplingConfig, group: int) -> list[slice]:
    """Windows of a video's latent frames.

    Args:
        group: frames of a latent frame, after the first.
    """
    length, overlap = -(-(config.max_frames - 1) // group) + 1, -(-config.overlap // group)
    return plan_windows(latent_frames, length, overlap)


def _lowest(sigmas: Tensor, config: SamplingConfig) -> float:
    """The lowest noise level that has guidance."""
    return float(sigmas[round(config.guided_share * config.steps) - 1]) if config.guided_share else 2.0


def _text_alone(transformer: Any, text_BTD: Tensor, x_BCFHW: Tensor, sigma_B: Tensor) -> Tensor:
    """The frozen model's velocity, without a source."""
    return denoise(transformer, x_BCFHW, sigma_B, text_BTD)


@contextlib.contextmanager
def _first_block_cache(transformer: WanTransformer3DModel, threshold: float):
    """Turn on diffusers' First Block Cache inside, if the threshold is above 0."""
    if threshold == 0:
        yield
        return
    transformer.enable_cache(FirstBlockCacheConfig(threshold))
    try:
        yield
    finally:
        transformer.disable_cache()


def _cached_by_name(transformer: WanTransformer3DModel, name: str, velocity: Velocity) -> Velocity:
    """The same velocity, with a First Block Cache of its own."""

    def named(x_BCFHW: Tensor, sigma_B: Tensor) -> Tensor:
        if not transformer.is_cache_enabled:
            return velocity(x_BCFHW, sigma_B)
        with transformer.cache_context(name):
            return velocity(x_BCFHW, sigma_B)

    return named


def _with_callback(velocity: Velocity, on_step: StepCallback | None) -> Velocity:
    def called(x_BCFHW: Tensor, sigma_B: Tensor) -> Tensor:
        v_BCFHW = velocity(x_BCFHW, sigma_B)
        if on_step is not None:
            on_step(x_BCFHW, float(sigma_B[0]), v_BCFHW)
        return v_BCFHW

    return called


def _counter(progress: Progress | None, total: int) -> Callable[[], None] | None:
    if progress is None:
        return None
    done = iter(range(1, total + 1))
    return lambda: progress(next(done), total)
