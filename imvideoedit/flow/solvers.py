"""From noise to latents: a schedule and solvers, all plain functions of a velocity.

Time runs from 1 (noise) to 0 (clean); B batch, C channels, F frames.
"""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler
from torch import Tensor
from torch.utils._pytree import tree_map

State = Any
"""What is sampled: a video's latents ``x_BCFHW``, or several tensors ``[B, ...]`` in a dict, one of them ``video``."""
Velocity = Callable[[State, Tensor], State]
"""``(x, sigma_B) -> v``, an estimate of dx/dsigma, of the structure and shapes of the state x."""


def video_of(state: State) -> Tensor:
    """The video's latents in a state."""
    return state["video"] if isinstance(state, dict) else state


def with_video(state: State, video_BCFHW: Tensor) -> State:
    """The state with another video."""
    return {**state, "video": video_BCFHW} if isinstance(state, dict) else video_BCFHW


def shift_sigma(u: Tensor, shift: float) -> Tensor:
    """Wan's time warp ``s*u / (1 + (s-1)*u)`` on [0, 1]: a shift above 1 spends more time near the noise."""
    return shift * u / (1 + (shift - 1) * u)


def shifted_sigmas(steps: int, shift: float = 5.0, start: float = 1.0) -> Tensor:
    """Falling noise levels for ``solve``.

    Args:
        steps: solver steps, at least 1.
        shift: flow shift, above 0.
        start: share of the unwarped time to run, in (0, 1]. Below 1 the run begins between the noise and a clean
            latent (mix them with ``FlowMatching.path`` at the first level), which holds on to the latent's layout.

    Returns:
        ``[steps + 1]`` float32, strictly falling, ending in exactly 0; it begins with exactly 1 for ``start = 1``.

    Raises:
        ValueError: an argument is out of its range.
    """
    if steps < 1 or shift <= 0 or not 0 < start <= 1:
        raise ValueError(f"need steps >= 1, shift > 0, 0 < start <= 1; got {steps}, {shift}, {start}")
    return shift_sigma(torch.linspace(start, 0, steps + 1, dtype=torch.float64), shift).float()


@torch.no_grad()
def solve(
    velocity: Velocity, noise: State, sigmas: Tensor, callback: Callable[[int, State], None] | None = None
) -> State:
    """Integrate dx/dsigma = v(x, sigma) with Euler steps (Eq. 1).

    Args:
        velocity: called once a step with the state and its noise level for each sample.
        noise: state at ``sigmas[0]``.
        sigmas: ``[steps + 1]`` levels; the last is that of the result.
        callback: called after each step with its index and the new state; may raise to stop.

    Returns:
        The state at ``sigmas[-1]``, shapes and dtypes of the noise.
    """
    state, levels = noise, sigmas.tolist()
    for step, (sigma, following) in enumerate(zip(levels, levels[1:], strict=False)):
        v = velocity(state, _levels(state, sigma))
        length = following - sigma
        state = tree_map(lambda x, dx, length=length: x + length * dx.to(x.dtype), state, v)
        if callback is not None:
            callback(step, state)
    return state


@torch.no_grad()
def solve_unipc(
    velocity: Velocity, noise: State, sigmas: Tensor, callback: Callable[[int, State], None] | None = None
) -> State:
    """As :func:`solve`, with the second-order multistep solver UniPC (arXiv 2302.04867), diffusers' implementation."""
    state = noise
    schedulers = tree_map(lambda _: _unipc(sigmas), noise)  # each keeps the earlier velocities of one tensor
    for step, sigma in enumerate(sigmas[:-1].tolist()):

        def stepped(x: Tensor, v: Tensor, scheduler: UniPCMultistepScheduler, step: int = step) -> Tensor:
            return scheduler.step(v.to(x.dtype), scheduler.timesteps[step], x, return_dict=False)[0]

        state = tree_map(stepped, state, velocity(state, _levels(state, sigma)), schedulers)
        if callback is not None:
            callback(step, state)
    return state


def _unipc(sigmas: Tensor) -> UniPCMultistepScheduler:
    # The levels are shifted already.
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0)
    scheduler.set_timesteps(sigmas=sigmas[:-1].double().cpu().numpy())
    scheduler.set_begin_index(0)
    return scheduler


def _levels(state: State, sigma: float) -> Tensor:
    video_BCFHW = video_of(state)
    return torch.full((len(video_BCFHW),), sigma, device=video_BCFHW.device)


SOLVERS = {"euler": solve, "unipc": solve_unipc}
