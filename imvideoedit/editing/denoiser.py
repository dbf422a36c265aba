"""From noise to the latents of an edited video: windows, guidance, caching.

Shapes: B batch (one), C channels, F latent frames, H W latent pixels, T text tokens, D text width.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import FirstBlockCacheConfig, WanTransformer3DModel
from torch import Tensor

from imvideoedit.common.errors import UserError
from imvideoedit.edit_batch import EditBatch
from imvideoedit.editing.sampling_config import SamplingConfig
from imvideoedit.editing.windows import blended, plan_windows
from imvideoedit.flow.guidance import Guidance
from imvideoedit.flow.matching import FlowMatching
from imvideoedit.flow.solvers import SOLVERS, State, Velocity, shifted_sigmas, video_of
from imvideoedit.methods.base import Method
from imvideoedit.methods.keep_plan import KeepPlan

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
        keep: where what is known of the source in each window is from step to step; None encodes it at each step.
    """

    transformer: WanTransformer3DModel
    method: Method
    shift: float
    group: int
    config: SamplingConfig
    keep: KeepPlan | None = KeepPlan()

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
        config, frames = self.config, batch.source_BCFHW.shape[2]
        sigmas = shifted_sigmas(config.steps, self.shift if config.shift is None else config.shift, config.strength)
        windows = windows_of(frames, config, self.group)
        # The whole video first, as a window of itself: what a method computes of all of it is computed once.
        whole = self.method.window(batch, slice(0, frames), self.group)
        batches = [self.method.window(whole, window, self.group) for window in windows]
        parts = [
            partial(self._velocity, index, self._branches(each), _lowest(sigmas, config))
            for index, each in enumerate(batches)
        ]
        velocity = blended(parts, windows, _counter(progress, config.steps * len(windows)))
        state = self._start(batch, torch.Generator().manual_seed(seed), float(sigmas[0]))
        # Where the source is encoded anew at each step, its passes would be taken for further steps.
        with _first_block_cache(self.transformer, config.cache if self.keep else 0.0):
            return video_of(SOLVERS[config.solver](_with_callback(velocity, on_step), state, sigmas))

    def _start(self, batch: EditBatch, generator: torch.Generator, sigma: float) -> State:
        """The method's noise, with the source in it at a first noise level below 1."""
        noise = self.method.initial(batch, generator)
        if sigma == 1:
            return noise
        if not isinstance(noise, Tensor):
            raise UserError("strength below 1 starts from the source alone, which this adapter cannot; set it to 1")
        return FlowMatching.path(batch.source_BCFHW, noise, torch.full((len(noise),), sigma).to(noise.device)).x_BCFHW

    def _branches(self, batch: EditBatch) -> Callable[[], dict[str, Velocity]]:
        """Gives the method's branches of a window: those of all steps, or new ones where nothing is kept."""

        def made() -> dict[str, Velocity]:
            known = self.method.condition(self.transformer, batch, self.keep)
            return self.method.branches(self.transformer, batch, known)

        if self.keep is None:
            return made
        branches = made()
        return lambda: branches

    def _velocity(
        self, window: int, branches_of: Callable[[], dict[str, Velocity]], lowest: float, x: State, sigma_B: Tensor
    ) -> State:
        """Of one window; guidance down to the noise level ``lowest``."""
        branches = branches_of()

        def branch(name: str) -> State:
            if name not in branches:
                raise UserError(f"this adapter has no guidance by the {name.removeprefix('without_')}; leave it at 1")
            with self._cache_context(f"window {window} {name}"):
                return branches[name](x, sigma_B)

        guidance = Guidance(self.config.guidance, self.config.source_guidance)
        return self.method.guide(branch, guidance if sigma_B.max() >= lowest else Guidance())

    def _cache_context(self, name: str) -> contextlib.AbstractContextManager[None]:
        """A First Block Cache by name, where that is on."""
        enabled = self.transformer.is_cache_enabled
        return self.transformer.cache_context(name) if enabled else contextlib.nullcontext()


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


def _with_callback(velocity: Velocity, on_step: StepCallback | None) -> Velocity:
    def called(x: State, sigma_B: Tensor) -> State:
        v = velocity(x, sigma_B)
        if on_step is not None:
            on_step(video_of(x), float(sigma_B[0]), video_of(v))
        return v

    return called


def _counter(progress: Progress | None, total: int) -> Callable[[], None] | None:
    if progress is None:
        return None
    done = iter(range(1, total + 1))
    return lambda: progress(next(done), total)
