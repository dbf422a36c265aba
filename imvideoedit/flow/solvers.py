"""From noise to latents: a schedule, a solver and guidance, all plain functions of a velocity.

Time runs from 1 (noise) to 0 (clean); B batch, C channels, F frames.
"""

from collections.abc import Callable

import torch
from diffusers import UniPCMultistepScheduler
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""``(x_BCFHW, sigma_B) -> v_BCFHW``, an estimate of dx/dsigma."""


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
    velocity: Velocity, noise_BCFHW: Tensor, sigmas: Tensor, callback: Callable[[int, Tensor], None] | None = None
) -> Tensor:
    """Integrate dx/dsigma = v(x, sigma) with Euler steps (Eq. 1).

    Args:
        velocity: called once a step with the state and its noise level for each sample.
        noise_BCFHW: state at ``sigmas[0]``.
        sigmas: ``[steps + 1]`` levels; the last is that of the result.
        callback: called after each step with its index and the new state; may raise to stop.

    Returns:
        The state at ``sigmas[-1]``, shape and dtype of the noise.
    """
    x_BCFHW = noise_BCFHW
    levels = sigmas.tolist()
    for step, (sigma, following) in enumerate(zip(levels, levels[1:], strict=False)):
        sigma_B = torch.full((x_BCFHW.shape[0],), sigma, device=x_BCFHW.device)
        x_BCFHW = x_BCFHW + (following - sigma) * velocity(x_BCFHW, sigma_B).to(x_BCFHW.dtype)
        if callback is not None:
            callback(step, x_BCFHW)
    return x_BCFHW


@torch.no_grad()
def solve_unipc(
    velocity: Velocity, noise_BCFHW: Tensor, sigmas: Tensor, callback: Callable[[int, Tensor], None] | None = None
) -> Tensor:
    """As :func:`solve`, with the second-order multistep solver UniPC (arXiv 2302.04867), diffusers' implementation."""
    # The levels are shifted already.
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0)
    scheduler.set_timesteps(sigmas=sigmas[:-1].double().cpu().numpy())
    scheduler.set_begin_index(0)
    x_BCFHW = noise_BCFHW
    for step, (timestep, sigma) in enumerate(zip(scheduler.timesteps, sigmas.tolist(), strict=False)):
        sigma_B = torch.full((x_BCFHW.shape[0],), sigma, device=x_BCFHW.device)
        v_BCFHW = velocity(x_BCFHW, sigma_B).to(x_BCFHW.dtype)
        x_BCFHW = scheduler.step(v_BCFHW, timestep, x_BCFHW, return_dict=False)[0]
        if callback is not None:
            callback(step, x_BCFHW)
    return x_BCFHW


SOLVERS = {"euler": solve, "unipc": solve_unipc}
