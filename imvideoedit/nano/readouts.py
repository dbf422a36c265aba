"""Readouts: auxiliary losses on the transformer's hidden states, next to that of the velocity.

Wan knows places only through rotary angles, which encode distances, and a small transformer needs very long to learn
from them where "top left" is, or which token is to become the red box. Linear readouts ask for both after early
blocks: first where each token is (row and column), then which colour and kind of thing it shows. They are trained
too and thrown away. Without them (and with AdamW, and full scenes from the start) the colours of things were at chance
after 3,250 steps of 16 images; with them, Muon and plain scenes first, they were not after 2,250 steps of 32.

Training an adapter may use those of the content, too: they strengthen the text against the source.

Shapes: B batch, F latent frames, h x w tokens of a frame, L = F*h*w, D width.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional

from imvideoedit.world.render import which_thing
from imvideoedit.world.scenes import KINDS, MATERIALS, OBJECT_COLORS, STATES, Scene

# Attributes to read out of each token, with the weight of the loss, relative to 1 for the velocity.
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
    """Linear readouts of ``ATTRIBUTES`` from the outputs of some blocks, which :func:`tapped` collects.

    Args:
        transformer: whose width and depth count.
        blocks: indices of the blocks; the middle one and the last if None.

    Attributes:
        taps: indices of all blocks whose outputs :meth:`losses` needs.
    """

    def __init__(self, transformer: WanTransformer3DModel, blocks: Sequence[int] | None = None) -> None:
        super().__init__()
        config, depth = transformer.config, len(transformer.blocks)
        self.width = config.num_attention_heads * config.attention_head_dim
        self.sizes = [len(names) + 1 for names, _ in ATTRIBUTES.values()]
        self.blocks = tuple(dict.fromkeys((depth // 2, depth - 1) if blocks is None else blocks))
        self.taps = self.blocks
        self.content = nn.ModuleDict({f"content_{index}": self.readout(sum(self.sizes)) for index in self.blocks})

    def readout(self, outputs: int) -> nn.Module:
        """A linear map of a block's normalised output."""
        return nn.Sequential(nn.LayerNorm(self.width), nn.Linear(self.width, outputs))

    def losses(self, labels: Mapping[str, Tensor], outputs: Mapping[int, Tensor]) -> dict[str, Tensor]:
        """Weighted cross entropies, ``[B]`` each; rows of the outputs beyond the labels' are not used.

        Args:
            labels: ``content`` as :func:`label_tokens` gives it, ``[B, F, h, w, 4]``.
            outputs: of the blocks, ``[B, L, D]`` by index.
        """
        found: dict[str, Tensor] = {}
        labels_BFhwA = labels["content"]
        for index, readout in zip(self.blocks, self.content.values(), strict=True):
            scores = readout(outputs[index][: len(labels_BFhwA)]).float().split(self.sizes, dim=-1)
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
        self.place_block = min(1, depth - 1)
        self.taps = (self.place_block, *self.blocks)

    def losses(self, labels: Mapping[str, Tensor], outputs: Mapping[int, Tensor]) -> dict[str, Tensor]:
        labels_BFhwA = labels["content"]
        rows, columns = (torch.arange(n, device=labels_BFhwA.device) for n in labels_BFhwA.shape[2:4])
        of_row, of_column = self.place(outputs[self.place_block]).float().chunk(2, dim=-1)
        grid = labels_BFhwA.shape[:-1]
        place_B = entropy(of_row, rows[:, None].expand(grid)) + entropy(of_column, columns.expand(grid))
        return {"place": PLACE_WEIGHT * place_B, **super().losses(labels, outputs)}


def entropy(scores_BLN: Tensor, wanted_BFhw: Tensor) -> Tensor:
    """Mean cross entropy of each sample, ``[B]``."""
    wanted_BL = wanted_BFhw.flatten(1).long()
    return functional.cross_entropy(scores_BLN.mT, wanted_BL, reduction="none").mean(1)
