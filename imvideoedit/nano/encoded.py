"""Training pairs of the nano world as latents and text embeddings, so that training runs no encoder.

Shapes: B batch, C latent channels, F latent frames, T text tokens, D text width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from ..backbone import Backbone
from ..data.pan_zoom import CameraPath
from ..methods.base import EditBatch
from .mix import PairMix, sample_pair
from .readouts import label_tokens
from .world import to_tensor


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs in memory: half-precision latents ``[N, C, F, H', W']``, each text once, cut after its last token.

    ``labels_NFhwA`` are the target's (see ``label_tokens``); None for clips, which no scene describes.
    """

    source_NCFHW: Tensor
    target_NCFHW: Tensor
    labels_NFhwA: Tensor | None
    text_of_pair: list[int]
    texts_TD: list[Tensor]
    tokens: int

    def __len__(self) -> int:
        return len(self.text_of_pair)

    def batch(self, indices: Sequence[int]) -> EditBatch:
        """Stack pairs into a float32 batch; texts are padded with zeros as the backbone's encoder does."""
        chosen = torch.as_tensor(list(indices))
        width = self.texts_TD[0].shape[-1]
        text_BTD = torch.zeros(len(chosen), self.tokens, width)
        for row, index in enumerate(indices):
            text_TD = self.texts_TD[self.text_of_pair[index]]
            text_BTD[row, : len(text_TD)] = text_TD.float()
        source, target = self.source_NCFHW[chosen].float(), self.target_NCFHW[chosen].float()
        labels = None if self.labels_NFhwA is None else self.labels_NFhwA[chosen]
        return EditBatch(source, target, text_BTD, labels_BFhwA=labels)


@torch.no_grad()
def encode_pairs(
    backbone: Backbone,
    seed: int,
    count: int,
    split: str,
    resolution: int = 64,
    mix: PairMix | None = None,
    frames: int = 1,
    chunk: int = 64,
) -> EncodedPairs:
    """Render and encode pairs 0 to ``count - 1`` of a seed, with a progress bar.

    Args:
        resolution: height and width in pixels; must divide by the backbone's ``pixel_multiple``.
        mix: of the training pairs.
        frames: of each pair, 4k + 1; above 1 a camera moves over the two stills (see ``CameraPath``).
        chunk: pairs encoded at a time.
    """
    sources, targets, labels, texts = [], [], [], []
    grid = (resolution // backbone.pixel_multiple,) * 2
    starts = range(0, count, chunk)
    for start in track(starts, description=f"encoding {count} {split} pairs", transient=True):
        pairs = [sample_pair(seed, index, split, mix) for index in range(start, min(start + chunk, count))]
        texts += [text for _, text in pairs]
        labels += [label_tokens(edit.target, 1, grid) for edit, _ in pairs]
        rendered = [edit.render(1, (resolution, resolution))[:2] for edit, _ in pairs]
        if frames > 1:
            rendered = [_filmed(pair, (seed, start + place), frames) for place, pair in enumerate(rendered)]
        sources.append(_latents(backbone, [source for source, _ in rendered]))
        targets.append(_latents(backbone, [target for _, target in rendered]))
    unique = list(dict.fromkeys(texts))
    position = {text: i for i, text in enumerate(unique)}
    encoded: list[Tensor] = []
    tokens = 0
    for start in track(range(0, len(unique), chunk), description=f"encoding {len(unique)} texts", transient=True):
        text_BTD = backbone.encode_text(unique[start : start + chunk]).float().cpu()
        tokens = text_BTD.shape[1]
        encoded += [_without_padding(text_TD) for text_TD in text_BTD]
    labels_NFhwA = torch.stack(labels) if frames == 1 else None
    return EncodedPairs(
        torch.cat(sources), torch.cat(targets), labels_NFhwA, [position[t] for t in texts], encoded, tokens
    )


def _filmed(pair: tuple[np.ndarray, np.ndarray], seed: tuple[int, ...], frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Both stills under one camera."""
    path = CameraPath.sample(np.random.default_rng(seed))
    return path.film(pair[0][0], frames), path.film(pair[1][0], frames)


def _latents(backbone: Backbone, images: list[np.ndarray]) -> Tensor:
    video_BCFHW = torch.stack([to_tensor(image) for image in images]).to(backbone.device)
    return backbone.encode_video(video_BCFHW).half().cpu()


def _without_padding(text_TD: Tensor) -> Tensor:
    filled = text_TD.abs().sum(-1).nonzero()
    return text_TD[: int(filled[-1]) + 1 if len(filled) else 0].half().clone()
