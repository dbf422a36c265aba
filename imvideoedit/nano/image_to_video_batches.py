"""Batches for the image-to-video backbone: nano videos, masked as image-to-video models and edits mask them.

Batch i depends on the seed and i alone, so resuming is exact. Shapes: F frames, H W pixels.
"""

from typing import Any

import numpy as np
import torch
from scipy.ndimage import maximum_filter

from imvideoedit.methods.image_condition import masked_frames
from imvideoedit.nano.scene_batches import SeededBatches, to_tensor
from imvideoedit.world.grammar import caption
from imvideoedit.world.render import render, visible_share
from imvideoedit.world.scenes import Scene, plain_scene, sample_scene

PLAIN = 0.2  # share of plain scenes of one thing
WHOLE = 0.35  # share of clips of which the first frame alone is given; in the others a thing is masked
ANYTHING = 0.15  # share of masks that have nothing to do with a thing
EMPTY = 0.1  # share of stills of which nothing is given
MARGIN = 6  # largest number of pixels that a mask reaches beyond its thing


class ImageToVideoBatches(SeededBatches):
    """Batches of ``{"video": [B, 3, F, H, W], "masked": the same, "mask": [B, 1, F, H, W], "text": B captions}``.

    The mask is 1 where the video is generated. Of clips the first frame is always given; of stills a part, or nothing.
    """

    def draw(self, rng: np.random.Generator, size: int, frames: int) -> dict[str, Any]:
        found: dict[str, list] = {"video": [], "masked": [], "mask": [], "text": []}
        for _ in range(size):
            scene = plain_scene(rng, "train") if rng.random() < PLAIN else sample_scene(rng, "train")
            video_FHWC = render(scene, frames, (64, 64))
            mask_FHW = draw_mask(rng, scene, frames)
            masked = np.stack(list(masked_frames(video_FHWC, mask_FHW, video_FHWC[0] if frames > 1 else None)))
            found["video"].append(to_tensor(video_FHWC))
            found["masked"].append(to_tensor(masked))
            found["mask"].append(torch.from_numpy(mask_FHW)[None] / 255)
            found["text"].append(caption(scene, rng))
        return {name: each if name == "text" else torch.stack(each) for name, each in found.items()}


def draw_mask(rng: np.random.Generator, scene: Scene, frames: int, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """A random mask, uint8 ``[F, H, W]``, 255 where the video is generated.

    All of it; or a box; or a thing with a margin, as its outline, as a box that moves with it, or as one around all of
    its way.
    """
    height, width = size
    if rng.random() < (WHOLE if frames > 1 else EMPTY):
        return np.full((frames, *size), 255, np.uint8)
    if rng.random() < ANYTHING:
        corners = np.sort(rng.uniform(0, (height, width), (2, 2)), axis=0).round().astype(int)
        mask_FHW = np.zeros((frames, *size), np.uint8)
        mask_FHW[:, corners[0, 0] : corners[1, 0], corners[0, 1] : corners[1, 1]] = 255
        return mask_FHW
    shown_FHW = visible_share(scene, int(rng.integers(len(scene.things))), frames, size) > 0
    margin, form = int(rng.integers(MARGIN + 1)), rng.choice(("outline", "boxes", "way"))
    if form == "way":
        shown_FHW = np.broadcast_to(shown_FHW.any(0), shown_FHW.shape)
    if form != "outline":
        shown_FHW = np.stack([_box(shown_HW) for shown_HW in shown_FHW])
    reach = 2 * margin + 1
    return maximum_filter(shown_FHW.astype(np.uint8) * 255, (1, reach, reach), mode="constant")


def _box(shown_HW: np.ndarray) -> np.ndarray:
    """The bounding box of what is true."""
    rows, columns = (_span(np.asarray(shown_HW.any(axis))) for axis in (1, 0))
    return rows[:, None] & columns[None]


def _span(shown_N: np.ndarray) -> np.ndarray:
    """True from the first to the last true value."""
    return np.logical_or.accumulate(shown_N) & np.logical_or.accumulate(shown_N[::-1])[::-1]
