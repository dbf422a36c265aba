"""Flow matching on a straight path between clean latents and noise.

Usage::

    objective = FlowMatching(shift=5.0)
    sigma_B = objective.sample_sigma(len(clean))
    point = objective.path(clean, torch.randn_like(clean), sigma_B)
    loss_B = objective.loss(model(point.x_BCFHW, sigma_B), point.velocity_BCFHW)

Shapes: B batch, C channels, F frames.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from imvideoedit.common.errors import UserError
from imvideoedit.flow.solvers import shift_sigma

DIFFERENT = 0.02  # of the latents' unit spread: well above rounding, well below an edit that can be seen


@dataclass(frozen=True)
class PathPoint:
    """A point on the path: the noisy latents and the velocity the network should predict there.

    Of a state of several parts, both are dictionaries.
    """

    x_BCFHW: Tensor
    velocity_BCFHW: Tensor


@dataclass(frozen=True)
class FlowMatching:
    """Straight path, shifted noise levels, squared error.

    Args:
        shift: Wan's flow shift, above 0; 1 leaves the distribution as it is.
        distribution: of the noise level before the shift: ``uniform`` on [0, 1], or ``logit_normal``, the
            sigmoid of a standard normal.
        change_share: share of a sample's loss, in [0, 1], added to where the pair differs, on top of that region's own
            share; 0 is the paper's plain mean.

    Raises:
        UserError: an argument is out of its range.
    """

    shift: float = 5.0
    distribution: Literal["uniform", "logit_normal"] = "uniform"
    change_share: float = 0.0

    def __post_init__(self) -> None:
        if self.shift <= 0:
            raise UserError(f"objective.shift is {self.shift}; it must be above 0")
        if self.distribution not in ("uniform", "logit_normal"):
            raise UserError(f"objective.distribution is {self.distribution!r}; choose uniform or logit_normal")
        if not 0 <= self.change_share <= 1:
            raise UserError(f"objective.change_share is {self.change_share}; it must be in [0, 1]")

    def sample_sigma(self, batch: int, generator: torch.Generator | None = None, device=None) -> Tensor:
        """Draw ``[batch]`` float32 noise levels in [0, 1] on ``device``; drawn on the generator's device."""
        where = generator.device if generator is not None else device
        if self.distribution == "uniform":
            u_B = torch.rand(batch, generator=generator, device=where)
        else:
            u_B = torch.sigmoid(torch.randn(batch, generator=generator, device=where))
        return shift_sigma(u_B, self.shift).to(device)

    @staticmethod
    def path(clean_BCFHW: Tensor, noise_BCFHW: Tensor, sigma_B: Tensor) -> PathPoint:
        """Mix clean latents and noise at the levels ``sigma_B`` in [0, 1]; level 0 is clean."""
        sigma_B1111 = sigma_B.to(clean_BCFHW.dtype).reshape(-1, 1, 1, 1, 1)
        # Eq. 2: x_t = (1 - t) x + t ε
        x_BCFHW = (1 - sigma_B1111) * clean_BCFHW + sigma_B1111 * noise_BCFHW
        # its derivative in t, the target of Eq. 3: ε - x
        return PathPoint(x_BCFHW, noise_BCFHW - clean_BCFHW)

    def weights(self, source_BCFHW: Tensor, target_BCFHW: Tensor) -> Tensor | None:
        """Weights of the squared errors, ``[B, 1, F, H, W]`` with mean 1 in each sample; None for a plain mean.

        A latent pixel differs where the mean square difference of its channels exceeds ``DIFFERENT``. In a sample
        without any such pixel, all weights are equal.
        """
        if self.change_share == 0:
            return None
        differs = (target_BCFHW.float() - source_BCFHW.float()).square().mean(1, keepdim=True) > DIFFERENT
        share_B1111 = differs.float().mean((1, 2, 3, 4), keepdim=True)
        changed = torch.where(share_B1111 > 0, differs / share_B1111.clamp(min=1e-9), torch.ones_like(share_B1111))
        return 1 - self.change_share + self.change_share * changed

    @staticmethod
    def loss(predicted_BCFHW: Tensor, velocity_BCFHW: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean of each sample's squared errors, weighted if weights are given: ``[B]`` float32."""
        # Eq. 3: ‖v_θ(x_t, t, c, z_src) - (ε - x)‖²
        errors_BCFHW = (predicted_BCFHW.float() - velocity_BCFHW.float()).square()
        return (errors_BCFHW if weights is None else weights * errors_BCFHW).flatten(1).mean(1)
