"""Encoded pairs of the nano world on disk, so that the runs of a sweep encode them once.

A pair's key is a hash of all that decides what is in it: backbone, mix, seed, renderer, and its number.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from imvideoedit.common.hashing import hash_tensors
from imvideoedit.data.shards import Entry, ShardStore, Share, fill
from imvideoedit.nano.encoded import EncodedPairs, encode_pairs, encode_rows, encode_texts
from imvideoedit.nano.mix import PairMix, sample_pair
from imvideoedit.wan.backbone import Backbone

PROBED = 8  # pairs whose pixels and texts tell one state of the renderer and the grammar from another
LAYOUT = 1  # of the entries


def cached_pairs(
    folder: Path | str | None,
    backbone: Backbone,
    seed: int,
    count: int,
    split: str,
    resolution: int,
    mix: PairMix,
    frames: int = 1,
    share: Share | None = None,
) -> EncodedPairs:
    """:func:`encode_pairs`, with what earlier calls have encoded taken from disk.

    Args:
        folder: of the cache, made if missing; None encodes without it.
        share: of several processes that encode together.
    """
    if folder is None:
        return encode_pairs(backbone, seed, count, split, resolution, mix, frames)
    share = share or Share()
    pairs, texts = ShardStore(Path(folder) / "pairs"), ShardStore(Path(folder) / "texts")
    for store in (pairs, texts):
        store.mend(share)
    base = _base(backbone, seed, split, resolution, mix, frames)
    number = {_name(base, str(index)): index for index in range(count)}

    def encode(keys: list[str]) -> Mapping[str, Entry]:
        rows = encode_rows(backbone, seed, [number[key] for key in keys], split, resolution, mix, frames)
        latents = {"source": rows.source_NCFHW, "target": rows.target_NCFHW, "labels": rows.labels_NFhwA}
        entries = {key: {n: t[row].clone() for n, t in latents.items()} for row, key in enumerate(keys)}
        for key, text in zip(keys, rows.texts, strict=True):
            entries[key]["words"] = torch.from_numpy(np.frombuffer(text.encode(), np.uint8).copy())
        return entries

    fill(pairs, list(number), encode, f"{split} pairs", share)
    entries = [pairs.read(key) for key in number]
    words = [entry["words"].numpy().tobytes().decode() for entry in entries]
    encoder = hash_tensors(_required(backbone, "text_encoder"))
    text_of = {_name(encoder, text): text for text in words}

    def encode_some(keys: list[str]) -> Mapping[str, Entry]:
        found = encode_texts(backbone, [text_of[key] for key in keys])
        return {key: found[text_of[key]] for key in keys}

    fill(texts, list(text_of), encode_some, "texts", share)
    embeddings = [texts.read(key) for key in text_of]
    position = {text: place for place, text in enumerate(text_of.values())}
    return EncodedPairs(
        torch.stack([entry["source"] for entry in entries]),
        torch.stack([entry["target"] for entry in entries]),
        torch.stack([entry["labels"] for entry in entries]),
        [position[text] for text in words],
        [entry["text"] for entry in embeddings],
        int(embeddings[0]["tokens"]),
    )


def _base(backbone: Backbone, seed: int, split: str, resolution: int, mix: PairMix, frames: int) -> str:
    digest = hashlib.sha256(hash_tensors(_required(backbone, "vae")).encode())
    digest.update(json.dumps([LAYOUT, seed, split, resolution, vars(mix), frames]).encode())
    for index in range(PROBED):
        edit, text = sample_pair(seed, index, split, mix)
        source, target, _ = edit.render(1, (resolution, resolution))
        digest.update(text.encode() + source.tobytes() + target.tobytes())
    return digest.hexdigest()


def _required(backbone: Backbone, part: str) -> dict[str, torch.Tensor]:
    return getattr(backbone, part).state_dict()


def _name(base: str, item: str) -> str:
    return hashlib.sha256(f"{base} {item}".encode()).hexdigest()[:32]
