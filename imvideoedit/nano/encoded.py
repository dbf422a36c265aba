"""Training pairs of the nano world as latents and text embeddings, so that training runs no encoder.

Shapes: B batch, C latent channels, F latent frames, T text tokens, D text width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from imvideoedit.data.shards import Entry
from imvideoedit.edit_batch import EditBatch
from imvideoedit.nano.mix import PairMix, sample_pair
from imvideoedit.nano.readouts import label_tokens
from imvideoedit.nano.scene_batches import to_tensor
from imvideoedit.training.encoding import text_entry
from imvideoedit.wan.backbone import Backbone

CHUNK = 64  # pairs or texts encoded at a time


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs in memory: half-precision latents ``[N, C, F, H', W']``, each text once, cut after its last token.

    ``labels_NFhwA`` are the target's (see ``label_tokens``).
    """

    source_NCFHW: Tensor
    target_NCFHW: Tensor
    labels_NFhwA: Tensor
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
        return EditBatch(source, target, text_BTD, labels_BFhwA=self.labels_NFhwA[chosen])


@dataclass(frozen=True)
class EncodedRows:
    """Pairs without their texts' embeddings; fields as those of :class:`EncodedPairs`."""

    source_NCFHW: Tensor
    target_NCFHW: Tensor
    labels_NFhwA: Tensor
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
        torch.cat([part.labels_NFhwA for part in parts]),
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
        frames: of each pair, 4k + 1; above 1 the pairs are videos, both rendered exactly.
    """
    pairs = [sample_pair(seed, index, split, mix) for index in indices]
    rendered = [edit.render(frames, (resolution, resolution))[:2] for edit, _ in pairs]
    grid = (resolution // backbone.pixel_multiple,) * 2
    labels = torch.stack([label_tokens(edit.target, (frames - 1) // 4 + 1, grid) for edit, _ in pairs])
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


def _latents(backbone: Backbone, images: list[np.ndarray]) -> Tensor:
    video_BCFHW = torch.stack([to_tensor(image) for image in images]).to(backbone.device)
    return backbone.encode_video(video_BCFHW).half().cpu()
