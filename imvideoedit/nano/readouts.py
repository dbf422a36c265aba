"""Readouts: what training asks of the transformer's inner states beside the velocity.

Wan knows places only through rotary angles, which tell distances, and a small transformer needs very long to work out
from them where "top left" is, or which token is to become the red box. Linear readouts ask for both after early
blocks: first where each token is (row and column), then which colour and kind of thing it shows. They are trained
along and thrown away; what they taught stays. Without them (and with AdamW, and full scenes from the start) 3,250 steps
of 16 images left the colours of things at chance; with them, Muon and plain scenes first, 2,250 steps of 32 did not.

Training an adapter may ask for the content, too: an edit's text rules over what the source shows, and few pairs say so.

Shapes: B batch, F latent frames, h x w tokens of a frame, L = F*h*w, D width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional

from imvideoedit.world.render import which_thing
from imvideoedit.world.scenes import KINDS, MATERIALS, OBJECT_COLORS, STATES, Scene

# What is asked of each token, with the weight of the loss beside 1 for the velocity.
ATTRIBUTES = {
    "color": (tuple(OBJECT_COLORS), 0.3),
    "kind": (KINDS, 0.1),
    "material": (MATERIALS, 0.1),
    "state": (STATES, 0.1),
}
PLACE_WEIGHT = 0.1
LARGEST_GRID = 16  # rows or columns


def label_tokens(scene: Scene, latent_frames: int, grid: tuple[int, int]) -> Tensor:
    """Attributes of the thing each token shows, in the order of ``ATTRIBUTES``, 0 for no thing: ``[F, h, w, 4]`` uint8.

    A latent frame k > 0 stands for frames 4k-3 to 4k, and is labelled by their middle. Of the four points looked at
    in a token, one on a thing is enough.
    """
    times = np.array([0.0, *(4 * k - 1.5 for k in range(1, latent_frames))])
    points = which_thing(scene, times, (2 * grid[0], 2 * grid[1]))
    thing_FhW = points.reshape(latent_frames, grid[0], 2, grid[1], 2).max(axis=(2, 4))
    rows = [
        [1 + names.index(getattr(thing, attribute)) for attribute, (names, _) in ATTRIBUTES.items()]
        for thing in scene.things
    ]
    return torch.from_numpy(np.array([[0] * len(ATTRIBUTES), *rows], np.uint8)[thing_FhW])


class ContentReadouts(nn.Module):
    """Linear readouts of ``ATTRIBUTES`` after some blocks of a transformer, which they watch through hooks.

    Args:
        transformer: hooks stay in it.
        blocks: indices of the blocks; the middle one and the last if None.
    """

    def __init__(self, transformer: WanTransformer3DModel, blocks: Sequence[int] | None = None) -> None:
        super().__init__()
        config, depth = transformer.config, len(transformer.blocks)
        self.width = config.num_attention_heads * config.attention_head_dim
        self.seen: dict[str, Tensor] = {}
        self.sizes = [len(names) + 1 for names, _ in ATTRIBUTES.values()]
        self.content = nn.ModuleDict()
        for index in (depth // 2, depth - 1) if blocks is None else blocks:
            self.content[f"content_{index}"] = self.readout(sum(self.sizes))
            self.watch(transformer, index, f"content_{index}")

    def readout(self, outputs: int) -> nn.Module:
        """A linear map of a block's normalised output."""
        return nn.Sequential(nn.LayerNorm(self.width), nn.Linear(self.width, outputs))

    def watch(self, transformer: WanTransformer3DModel, index: int, name: str) -> None:
        """Keep what a block puts out in every pass."""

        def hook(block: nn.Module, inputs: tuple, hidden_BLD: Tensor) -> None:
            self.seen[name] = hidden_BLD

        transformer.blocks[index].register_forward_hook(hook)

    def losses(self, labels_BFhwA: Tensor) -> dict[str, Tensor]:
        """Weighted cross entropies of the transformer's last pass, ``[B]`` each; rows beyond the labels' are not asked.

        Args:
            labels_BFhwA: see :func:`label_tokens`.
        """
        found: dict[str, Tensor] = {}
        for name, readout in self.content.items():
            scores = readout(self.seen[name][: len(labels_BFhwA)]).float().split(self.sizes, dim=-1)
            for place, (attribute, (_, weight)) in enumerate(ATTRIBUTES.items()):
                loss_B = weight * entropy(scores[place], labels_BFhwA[..., place])
                found[attribute] = found[attribute] + loss_B if attribute in found else loss_B
        return found


class Readouts(ContentReadouts):
    """Those of the pretraining: the place after the second block, the content after the middle one."""

    def __init__(self, transformer: WanTransformer3DModel) -> None:
        depth = len(transformer.blocks)
        super().__init__(transformer, [depth // 2])
        self.place = self.readout(2 * LARGEST_GRID)
        self.watch(transformer, min(1, depth - 1), "place")

    def losses(self, labels_BFhwA: Tensor) -> dict[str, Tensor]:
        rows, columns = (torch.arange(n, device=labels_BFhwA.device) for n in labels_BFhwA.shape[2:4])
        of_row, of_column = self.place(self.seen["place"]).float().chunk(2, dim=-1)
        grid = labels_BFhwA.shape[:-1]
        place_B = entropy(of_row, rows[:, None].expand(grid)) + entropy(of_column, columns.expand(grid))
        return {"place": PLACE_WEIGHT * place_B, **super().losses(labels_BFhwA)}


def entropy(scores_BLN: Tensor, wanted_BFhw: Tensor) -> Tensor:
    """Mean cross entropy of each sample, ``[B]``."""
    wanted_BL = wanted_BFhw.flatten(1).long()
    return functional.cross_entropy(scores_BLN.mT, wanted_BL, reduction="none").mean(1)
