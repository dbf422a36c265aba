"""Classifier-free guidance of velocities."""

from dataclasses import dataclass

from torch.utils._pytree import tree_map

from imvideoedit.flow.solvers import State, Velocity


@dataclass(frozen=True)
class Guidance:
    """Scales of guidance by the text and by the source; 1 is none."""

    text: float = 1.0
    source: float = 1.0


def extrapolated(without: State, conditional: State, scale: float) -> State:
    """``v_u + scale * (v_c - v_u)``, for each tensor of a state."""
    return tree_map(lambda v_u, v_c: v_u + scale * (v_c - v_u), without, conditional)


def pushed(v: State, conditional: State, without: State, scale: float) -> State:
    """``v + (scale - 1) * (v_c - v_u)``, for each tensor of a state."""
    return tree_map(lambda own, v_c, v_u: own + (scale - 1) * (v_c - v_u), v, conditional, without)


def guided(conditional: Velocity, unconditional: Velocity, scale: float) -> Velocity:
    """The velocity extrapolated from the unconditional one; at scale 1 that one is not called."""
    if scale == 1:
        return conditional
    return lambda x, sigma_B: extrapolated(unconditional(x, sigma_B), conditional(x, sigma_B), scale)
