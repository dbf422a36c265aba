"""Readouts: what pretraining asks of the transformer's inner states beside the velocity.

Wan knows places only through rotary angles, which tell distances, and a small transformer needs very long to work out
from them where "top left" is, or which token is to become the red box. Linear readouts ask for both after early
blocks: first where each token is (row and column), then which colour and kind of thing it shows. They are trained
along and thrown away; what they taught stays. Without them (and with AdamW, and full scenes from the start) 3,250 steps
of 16 images left the colours of things at chance; with them, Muon and plain scenes first, 2,250 steps of 32 did not.

Shapes: B batch, F latent frames, h x w tokens of a frame, L = F*h*w, D width.
"""

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional

from .render import which_thing
from .scenes import KINDS, OBJECT_COLORS, Scene

PLACE_WEIGHT, COLOR_WEIGHT, KIND_WEIGHT = 0.1, 0.3, 0.1  # beside 1 for the velocity
LARGEST_GRID = 16  # rows or columns


def label_tokens(scene: Scene, latent_frames: int, grid: tuple[int, int]) -> Tensor:
    """Colour and kind of the thing each token shows, 0 for none: ``[F, h, w, 2]`` integers.

    A latent frame k > 0 stands for frames 4k-3 to 4k, and is labelled by their middle. Of the four points looked at
    in a token, one on a thing is enough.
    """
    times = np.array([0.0, *(4 * k - 1.5 for k in range(1, latent_frames))])
    points = which_thing(scene, times, (2 * grid[0], 2 * grid[1]))
    thing_FhW = points.reshape(latent_frames, grid[0], 2, grid[1], 2).max(axis=(2, 4))
    colors = [0, *(1 + list(OBJECT_COLORS).index(t.color) for t in scene.things)]
    kinds = [0, *(1 + KINDS.index(t.kind) for t in scene.things)]
    return torch.from_numpy(np.stack([np.array(colors)[thing_FhW], np.array(kinds)[thing_FhW]], axis=-1))


class Readouts(nn.Module):
    """Linear readouts after the second and the middle block of a transformer, which they watch through hooks."""

    def __init__(self, transformer: WanTransformer3DModel) -> None:
        super().__init__()
        config, blocks = transformer.config, transformer.blocks
        width = config.num_attention_heads * config.attention_head_dim
        self.place = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * LARGEST_GRID))
        self.content = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(OBJECT_COLORS) + len(KINDS) + 2))
        self.seen: dict[str, Tensor] = {}
        for name, index in (("place", 1), ("content", len(blocks) // 2)):
            blocks[min(index, len(blocks) - 1)].register_forward_hook(self._keep(name))

    def _keep(self, name: str):
        def hook(block: nn.Module, inputs: tuple, hidden_BLD: Tensor) -> None:
            self.seen[name] = hidden_BLD

        return hook

    def losses(self, labels_BFhw2: Tensor) -> dict[str, Tensor]:
        """Weighted cross entropies of the transformer's last pass, each a scalar."""
        shape = labels_BFhw2.shape[:-1]
        rows, columns = (torch.arange(n, device=labels_BFhw2.device) for n in shape[2:])
        place = self.place(self.seen["place"]).float().chunk(2, dim=-1)
        content = self.content(self.seen["content"]).float().split([len(OBJECT_COLORS) + 1, len(KINDS) + 1], dim=-1)

        def entropy(scores_BLN: Tensor, wanted: Tensor) -> Tensor:
            return functional.cross_entropy(scores_BLN.flatten(0, 1), wanted.expand(shape).flatten())

        return {
            "place": PLACE_WEIGHT * (entropy(place[0], rows[:, None]) + entropy(place[1], columns)),
            "color": COLOR_WEIGHT * entropy(content[0], labels_BFhw2[..., 0]),
            "kind": KIND_WEIGHT * entropy(content[1], labels_BFhw2[..., 1]),
        }
