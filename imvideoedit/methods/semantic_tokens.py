"""SAMA's semantic tokens: what SigLIP sees in an anchor frame, in 8 x 8 regions and as a whole.

SigLIP is needed in training alone; an edit samples the tokens, as it samples the video.

Shapes: B batch, H W pixels, P patches, S semantic tokens (65), W SigLIP's width, D the transformer's width.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from imvideoedit.common.bundled import siglip_path
from imvideoedit.common.errors import UserError

GRID = 8  # regions of a side
TOKENS = GRID**2 + 1
EPSILON = 1e-6  # of the norms


class Siglip:
    """A frozen SigLIP's image tower, loaded when it is first needed, on the device of what it is given.

    Args:
        place: a folder, a hub id, or ``bundled`` for that of the nano world.
        width: of its features.
    """

    def __init__(self, place: str, width: int) -> None:
        self.place, self.width = place, width
        self._tower: Any = None

    @torch.no_grad()
    def __call__(self, anchor_B3HW: Tensor) -> Tensor:
        """Semantic tokens of images in [-1, 1]: float32 ``[B, S, W]``.

        Raises:
            UserError: it cannot be loaded, or has features of another width.
        """
        tower = self._on(anchor_B3HW.device)
        side = tower.config.image_size
        # SigLIP's own statistics are 0.5 and 0.5: values from -1 to 1.
        image = functional.interpolate(
            anchor_B3HW.float(), (side, side), mode="bilinear", align_corners=False, antialias=True
        )
        with torch.autocast(anchor_B3HW.device.type, enabled=False):
            return pooled(tower(pixel_values=image.to(tower.dtype)).last_hidden_state.float())

    def _on(self, device: torch.device) -> Any:
        if self._tower is None:
            self._tower = load_siglip(self.place).requires_grad_(False).eval()
            found = self._tower.config.hidden_size
            if found != self.width:
                raise UserError(f"method.width is {self.width}, but SigLIP in {self.place} has {found}; set it to that")
        return self._tower.to(device)


def load_siglip(place: str) -> Any:
    """The image tower of a SigLIP in float32.

    Raises:
        UserError: there is none.
    """
    from transformers import SiglipVisionModel  # late: edits do without it

    found = siglip_path(place)
    if not Path(found).is_dir() and (found.count("/") != 1 or found.startswith((".", "/", "~"))):
        raise UserError(f"there is no SigLIP at {found}; give method.siglip a folder, a hub id or bundled")
    try:
        return SiglipVisionModel.from_pretrained(found, dtype=torch.float32)
    except Exception as error:  # transformers does not document what a damaged or missing one raises
        words = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"SigLIP cannot be loaded from {found}: {words}; check method.siglip") from error


def pooled(patches_BPW: Tensor) -> Tensor:
    """The mean of each region of a square grid of patches, and of all: ``[B, S, W]``."""
    side = math.isqrt(patches_BPW.shape[1])
    grid_BWhw = patches_BPW.transpose(1, 2).unflatten(2, (side, side))
    regions_BSW = functional.adaptive_avg_pool2d(grid_BWhw, GRID).flatten(2).transpose(1, 2)
    return torch.cat([regions_BSW, patches_BPW.mean(1, keepdim=True)], dim=1)


class Projector(nn.Module):
    """Semantic tokens to the transformer's width.

    Args:
        width: of the tokens; ``hidden`` of the inner layer; ``out``, the transformer's.
    """

    def __init__(self, width: int, hidden: int, out: int, device=None, dtype=None) -> None:
        super().__init__()
        where = {"device": device, "dtype": dtype}
        self.norm = nn.LayerNorm(width, EPSILON, **where)
        self.fc1, self.fc2 = nn.Linear(width, hidden, **where), nn.Linear(hidden, out, **where)

    def forward(self, x_BSW: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(self.norm(x_BSW))))


class SemanticHead(nn.Module):
    """The last block's output at the semantic tokens to what is predicted of them."""

    def __init__(self, width: int, out: int, device=None, dtype=None) -> None:
        super().__init__()
        where = {"device": device, "dtype": dtype}
        self.norm, self.proj = nn.LayerNorm(width, EPSILON, **where), nn.Linear(width, out, **where)

    def forward(self, x_BSD: Tensor) -> Tensor:
        return self.proj(self.norm(x_BSD))
