"""Training pairs of the nano world, rendered and encoded once, so that training runs no encoder.

A pair's key is a hash of all that decides its contents: autoencoder, seed, mix, renderer, and its number.

Shapes: B batch, N pairs, C latent channels, F latent frames, T text tokens, D text width.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imvideoedit.data.shards import Entry, ProcessInfo, ShardStore, fill
from imvideoedit.edit_batch import EditBatch
from imvideoedit.nano.mix import PairMix, sample_pair
from imvideoedit.nano.readouts import label_tokens
from imvideoedit.nano.scene_batches import to_tensor
from imvideoedit.training.encoding import encoder_name, fill_texts, text_key
from imvideoedit.wan.backbone import Backbone
from imvideoedit.world.edits import Edit

PROBED = 8  # pairs whose pixels and texts identify the state of the renderer and the grammar
LAYOUT = 2  # of the entries


@dataclass(frozen=True)
class PairSet:
    """Pairs 0 to ``count - 1`` of a seed.

    Args:
        split: ``train`` or ``test`` compositions.
        resolution: height and width in pixels; must be a multiple of the backbone's ``pixel_multiple``.
        mix: of the training pairs.
        frames: of each pair, 4k + 1; above 1 the pairs are videos, both rendered exactly.
    """

    seed: int
    count: int
    split: str
    resolution: int = 64
    mix: PairMix = field(default_factory=PairMix)
    frames: int = 1

    def pair(self, index: int) -> tuple[Edit, str]:
        """An edit, and the text for training."""
        return sample_pair(self.seed, index, self.split, self.mix)

    def render(self, edit: Edit) -> tuple[np.ndarray, np.ndarray]:
        """Source and target, uint8 ``[F, H, W, 3]``."""
        return edit.render(self.frames, (self.resolution, self.resolution))[:2]

    def key(self, autoencoder: str) -> str:
        """A hash of all that decides the pairs, but not their number."""
        settings = [LAYOUT, autoencoder, self.seed, self.split, self.resolution, vars(self.mix), self.frames]
        digest = hashlib.sha256(json.dumps(settings).encode())
        for edit, text in map(self.pair, range(PROBED)):
            digest.update(text.encode() + b"".join(video[0].tobytes() for video in self.render(edit)))
        return digest.hexdigest()


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs in memory: half-precision latents, each text once and without padding.

    ``labels_NFhwA`` are the target's (see ``label_tokens``); ``tokens`` is the padded length of a text.
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
        """Stack pairs into a float32 batch, with texts padded by zeros as the encoder does."""
        rows = torch.as_tensor(list(indices))
        text_BTD = torch.zeros(len(rows), self.tokens, self.texts_TD[0].shape[-1])
        for row, index in enumerate(indices):
            text_TD = self.texts_TD[self.text_of_pair[index]]
            text_BTD[row, : len(text_TD)] = text_TD.float()
        source, target = self.source_NCFHW[rows].float(), self.target_NCFHW[rows].float()
        return EditBatch(source, target, text_BTD, labels={"content": self.labels_NFhwA[rows]})


def encoded_pairs(
    folder: Path | str | None, backbone: Backbone, pairs: PairSet, process: ProcessInfo | None = None
) -> EncodedPairs:
    """Render and encode the pairs that a cache lacks, and read all of them.

    Args:
        folder: of the cache; None for a temporary one.
        process: of several that encode together.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as own:
            return encoded_pairs(own, backbone, pairs)
    process = process or ProcessInfo()
    pair_store, text_store = ShardStore(Path(folder) / "pairs"), ShardStore(Path(folder) / "texts")
    for store in (pair_store, text_store):
        store.repair(process)
    base = pairs.key(encoder_name(backbone, "vae"))
    numbers = {hashlib.sha256(f"{base} {number}".encode()).hexdigest()[:32]: number for number in range(pairs.count)}

    def encode(keys: list[str]) -> Mapping[str, Entry]:
        return dict(zip(keys, _encode(backbone, pairs, [numbers[key] for key in keys]), strict=True))

    fill(pair_store, list(numbers), encode, f"{pairs.split} pairs", process)
    entries = [pair_store.read(key) for key in numbers]
    texts = [entry["words"].numpy().tobytes().decode() for entry in entries]
    text_encoder = encoder_name(backbone, "text_encoder")
    prompts = {text_key(text_encoder, text): text for text in texts}
    fill_texts(text_store, prompts, backbone, backbone.device, process)
    embeddings = [text_store.read(key) for key in prompts]
    position = {text: place for place, text in enumerate(prompts.values())}
    source, target, labels = (torch.stack([e[name] for e in entries]) for name in ("source", "target", "labels"))
    places, texts_TD = [position[text] for text in texts], [e["text"] for e in embeddings]
    return EncodedPairs(source, target, labels, places, texts_TD, int(embeddings[0]["tokens"]))


@torch.no_grad()
def _encode(backbone: Backbone, pairs: PairSet, numbers: Sequence[int]) -> list[dict[str, Tensor]]:
    """Entries of some pairs: latents of source and target, the target's labels, and the text's UTF-8 bytes."""
    edits, texts = zip(*map(pairs.pair, numbers), strict=True)
    videos: Any = zip(*map(pairs.render, edits), strict=True)
    source, target = (
        backbone.encode_video(torch.stack([to_tensor(video) for video in side]).to(backbone.device)).half().cpu()
        for side in videos
    )
    grid = (pairs.resolution // backbone.pixel_multiple,) * 2
    labels = [label_tokens(edit.target, (pairs.frames - 1) // 4 + 1, grid) for edit in edits]
    words = [torch.from_numpy(np.frombuffer(text.encode(), np.uint8).copy()) for text in texts]
    return [
        {"source": source[row].clone(), "target": target[row].clone(), "labels": labels[row], "words": words[row]}
        for row in range(len(numbers))
    ]
