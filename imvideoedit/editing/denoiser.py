"""From noise to the latents of an edited video: windows, guidance, and what need not be computed again.

Shapes: B batch (one), C channels, F latent frames, H W latent pixels, T text tokens, D text width.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

KEPT_SHARE = 0.5  # of the free memory that may hold what the source left in the windows
Progress = Callable[[int, int], None]
"""Called with (passes done, passes in all): one for each window at each solver step."""
Watch = Callable[[Tensor, float, Tensor], None]
"""Called at each solver step with the state, its noise level and its velocity, all of the whole video."""


@dataclass(frozen=True)
class Denoiser:
    """Makes edited latents with a method that is installed in a transformer.

    Args:
        transformer, method: frozen.
        shift: flow shift of the backbone, where the settings have none of their own.
        group: frames of a latent frame, after the first.
        chosen: settings.
    """

    transformer: WanTransformer3DModel
    method: Method
    shift: float
    group: int
    chosen: SamplingConfig

    @torch.no_grad()
    def __call__(
        self,
        source_BCFHW: Tensor,
        texts_BTD: Tensor,
        seed: int,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Edited latents of a source of any length.

        Args:
            texts_BTD: the edited prompt and, for guidance, the empty text, a row each.
            seed: of the noise.
        """
        chosen = self.chosen
        sigmas = shifted_sigmas(chosen.steps, self.shift if chosen.shift is None else chosen.shift, chosen.strength)
        windows = windows_of(source_BCFHW.shape[2], chosen, self.group)
        sources = [source_BCFHW[:, :, window] for window in windows]
        known = self._conditions(sources, texts_BTD)
        parts = [
            partial(self._velocity, index, source, known and known[index], texts_BTD, _lowest(sigmas, chosen))
            for index, source in enumerate(sources)
        ]
        velocity = blended(parts, windows, _counter(progress, chosen.steps * len(windows)))
        generator = torch.Generator().manual_seed(seed)
        noise_BCFHW = torch.randn(source_BCFHW.shape, generator=generator).to(source_BCFHW)
        start = FlowMatching.path(source_BCFHW, noise_BCFHW, sigmas[:1].to(noise_BCFHW.device))
        # Where the source is encoded anew at each step, its passes would be taken for further steps.
        with _first_block_cache(self.transformer, chosen.cache if known else 0.0):
            return SOLVERS[chosen.solver](_watched(velocity, watch), start.x_BCFHW, sigmas)

    def _conditions(self, sources: Sequence[Tensor], texts_BTD: Tensor) -> list[Any] | None:
        """The method's condition of each window; None where they would not fit."""
        first = self._condition(sources[0], texts_BTD)
        if first is None:
            return [None] * len(sources)
        room = KEPT_SHARE * free_bytes(sources[0].device)
        if len(sources) > 1 and first.nbytes * (len(sources) - 1) > room:
            return None
        conditions = [first, *(self._condition(source_BCFHW, texts_BTD) for source_BCFHW in sources[1:])]
        for condition in conditions:
            condition.keep_prepared = first.prepared_nbytes * len(sources) <= room
        return conditions

    def _condition(self, source_BCFHW: Tensor, texts_BTD: Tensor) -> Any:
        return self.method.condition(self.transformer, EditBatch(source_BCFHW, None, texts_BTD[:1]))

    def _velocity(
        self, window: int, source_BCFHW, known: Any, texts_BTD: Tensor, lowest: float, x_BCFHW: Tensor, sigma_B
    ) -> Tensor:
        """Of one window; guidance down to the noise level ``lowest``."""
        if known is None:
            known = self._condition(source_BCFHW, texts_BTD)
        batches = [EditBatch(source_BCFHW, None, text_TD[None]) for text_TD in texts_BTD]
        branches = [self.method.velocity(self.transformer, batch, known) for batch in batches]
        branches.append(partial(_text_alone, self.transformer, texts_BTD[:1]))
        named = [
            _remembering(self.transformer, f"window {window} branch {branch}", velocity)
            for branch, velocity in enumerate(branches)
        ]
        by_text = guided(named[0], named[-2], self.chosen.guidance, lowest)
        return guided(by_text, named[-1], self.chosen.source_guidance, lowest)(x_BCFHW, sigma_B)


def windows_of(latent_frames: int, chosen: SamplingConfig, group: int) -> list[slice]:
    """Windows of a video's latent frames.

    Args:
        group: frames of a latent frame, after the first.
    """
    length, overlap = -(-(chosen.max_frames - 1) // group) + 1, -(-chosen.overlap // group)
    return plan_windows(latent_frames, length, overlap)


def _lowest(sigmas: Tensor, chosen: SamplingConfig) -> float:
    """The lowest noise level that has guidance."""
    return float(sigmas[round(chosen.guided_share * chosen.steps) - 1]) if chosen.guided_share else 2.0


def _text_alone(transformer: Any, text_BTD: Tensor, x_BCFHW: Tensor, sigma_B: Tensor) -> Tensor:
    """What the frozen model makes without a source."""
    return denoise(transformer, x_BCFHW, sigma_B, text_BTD)


@contextlib.contextmanager
def _first_block_cache(transformer: WanTransformer3DModel, threshold: float):
    """Inside, a pass whose first block changes less than ``threshold`` since the last whole one skips the others."""
    if threshold == 0:
        yield
        return
    transformer.enable_cache(FirstBlockCacheConfig(threshold))
    try:
        yield
    finally:
        transformer.disable_cache()


def _remembering(transformer: WanTransformer3DModel, name: str, velocity: Velocity) -> Velocity:
    """The same velocity; its passes are compared with earlier ones of the same name only."""

    def named(x_BCFHW: Tensor, sigma_B: Tensor) -> Tensor:
        if not transformer.is_cache_enabled:
            return velocity(x_BCFHW, sigma_B)
        with transformer.cache_context(name):
            return velocity(x_BCFHW, sigma_B)

    return named


def _watched(velocity: Velocity, watch: Watch | None) -> Velocity:
    def seen(x_BCFHW: Tensor, sigma_B: Tensor) -> Tensor:
        v_BCFHW = velocity(x_BCFHW, sigma_B)
        if watch is not None:
            watch(x_BCFHW, float(sigma_B[0]), v_BCFHW)
        return v_BCFHW

    return seen


def _counter(progress: Progress | None, total: int) -> Callable[[], None] | None:
    if progress is None:
        return None
    done = iter(range(1, total + 1))
    return lambda: progress(next(done), total)
