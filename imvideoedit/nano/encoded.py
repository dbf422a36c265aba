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
from ..data.shards import Entry
from ..methods.base import EditBatch
from ..training.latents import text_entry
from .mix import PairMix, sample_pair
from .readouts import label_tokens
from .world import to_tensor

CHUNK = 64  # pairs or texts encoded at a time


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


@dataclass(frozen=True)
class EncodedRows:
    """Pairs without their texts' embeddings; fields as those of :class:`EncodedPairs`."""

    source_NCFHW: Tensor
    target_NCFHW: Tensor
    labels_NFhwA: Tensor | None
    texts: list[str]


def encode_pairs(
    backbone: Backbone,
    seed: int,
    count: int,
    split: str,
    resolution: int = 64,
    mix: PairMix | None = None,
    frames: int = 1,
) -> EncodedPairs:
    """Render and encode pairs 0 to ``count - 1`` of a seed, with a progress bar; arguments of :func:`encode_rows`."""
    starts = track(range(0, count, CHUNK), description=f"encoding {count} {split} pairs", transient=True)
    parts = [
        encode_rows(backbone, seed, range(start, min(start + CHUNK, count)), split, resolution, mix, frames)
        for start in starts
    ]
    texts = [text for part in parts for text in part.texts]
    entries = encode_texts(backbone, list(dict.fromkeys(texts)))
    position = {text: place for place, text in enumerate(entries)}
    return EncodedPairs(
        torch.cat([part.source_NCFHW for part in parts]),
        torch.cat([part.target_NCFHW for part in parts]),
        torch.cat([part.labels_NFhwA for part in parts if part.labels_NFhwA is not None]) if frames == 1 else None,
        [position[text] for text in texts],
        [entry["text"] for entry in entries.values()],
        int(next(iter(entries.values()))["tokens"]),
    )


@torch.no_grad()
def encode_rows(
    backbone: Backbone,
    seed: int,
    indices: Sequence[int],
    split: str,
    resolution: int,
    mix: PairMix | None,
    frames: int,
) -> EncodedRows:
    """Render and encode some pairs of a seed.

    Args:
        resolution: height and width in pixels; must divide by the backbone's ``pixel_multiple``.
        mix: of the training pairs.
        frames: of each pair, 4k + 1; above 1 a camera moves over the two stills (see ``CameraPath``).
    """
    pairs = [sample_pair(seed, index, split, mix) for index in indices]
    rendered = [edit.render(1, (resolution, resolution))[:2] for edit, _ in pairs]
    if frames > 1:
        rendered = [_filmed(pair, (seed, index), frames) for index, pair in zip(indices, rendered, strict=True)]
    grid = (resolution // backbone.pixel_multiple,) * 2
    labels = torch.stack([label_tokens(edit.target, 1, grid) for edit, _ in pairs]) if frames == 1 else None
    latents = [_latents(backbone, [pair[side] for pair in rendered]) for side in (0, 1)]
    return EncodedRows(latents[0], latents[1], labels, [text for _, text in pairs])


@torch.no_grad()
def encode_texts(backbone: Backbone, texts: Sequence[str]) -> dict[str, Entry]:
    """Embeddings of texts, by text, as ``text_entry`` keeps them."""
    entries: dict[str, Entry] = {}
    for start in range(0, len(texts), CHUNK):
        part = texts[start : start + CHUNK]
        entries |= {
            text: text_entry(text_TD)
            for text, text_TD in zip(part, backbone.encode_text(list(part)).float().cpu(), strict=True)
        }
    return entries


def _filmed(pair: tuple[np.ndarray, np.ndarray], seed: tuple[int, ...], frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Both stills under one camera."""
    path = CameraPath.sample(np.random.default_rng(seed))
    return path.film(pair[0][0], frames), path.film(pair[1][0], frames)


def _latents(backbone: Backbone, images: list[np.ndarray]) -> Tensor:
    video_BCFHW = torch.stack([to_tensor(image) for image in images]).to(backbone.device)
    return backbone.encode_video(video_BCFHW).half().cpu()
