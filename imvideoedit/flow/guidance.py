"""Classifier-free guidance of velocities."""

from torch import Tensor

from imvideoedit.flow.solvers import Velocity


def guided(conditional: Velocity, unconditional: Velocity, scale: float, lowest_sigma: float = 0.0) -> Velocity:
    """Classifier-free guidance ``v_u + scale * (v_c - v_u)``.

    At scale 1, and at noise levels below ``lowest_sigma``, it is ``v_c`` and the second velocity is not called.
    """
    if scale == 1:
        return conditional

    def velocity(x_BCFHW: Tensor, sigma_B: Tensor) -> Tensor:
        if sigma_B.max() < lowest_sigma:
            return conditional(x_BCFHW, sigma_B)
        without = unconditional(x_BCFHW, sigma_B)
        return without + scale * (conditional(x_BCFHW, sigma_B) - without)

    return velocity
