"""Encoded pairs on disk, so that the runs of a sweep encode them once.

A file's name is a hash of all that decides what is in it: another backbone, mix, seed or renderer makes another file.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..backbone import Backbone
from ..files import replacing
from ..hashing import hash_tensors
from .encoded import EncodedPairs, encode_pairs
from .mix import PairMix, sample_pair

PROBED = 8  # pairs whose pixels and texts tell one state of the renderer and the grammar from another


def cached_pairs(
    folder: Path | str | None,
    backbone: Backbone,
    seed: int,
    count: int,
    split: str,
    resolution: int,
    mix: PairMix,
    frames: int = 1,
) -> EncodedPairs:
    """:func:`encode_pairs`, or its result from an earlier call with the same arguments.

    Args:
        folder: of the files, made if missing; None encodes without it.
    """

    def encode() -> EncodedPairs:
        return encode_pairs(backbone, seed, count, split, resolution, mix, frames)

    if folder is None:
        return encode()
    path = Path(folder) / f"{_key(backbone, seed, count, split, resolution, mix, frames)}.safetensors"
    return _load_or(path, encode)


def _load_or(path: Path, encode: Callable[[], EncodedPairs]) -> EncodedPairs:
    if path.exists():
        try:
            return load_pairs(path)
        except SafetensorError:
            print(f"{path} cannot be read; encoding its pairs again")
    pairs = encode()
    save_pairs(pairs, path)
    return pairs


def _key(backbone: Backbone, seed: int, count: int, split: str, resolution: int, mix: PairMix, frames: int) -> str:
    encoders = {f"{n}.{k}": v for n in ("vae", "text_encoder") for k, v in getattr(backbone, n).state_dict().items()}
    digest = hashlib.sha256(hash_tensors(encoders).encode())
    layout = [field.name for field in dataclasses.fields(EncodedPairs)]
    digest.update(json.dumps([layout, seed, count, split, resolution, vars(mix), frames]).encode())
    for index in range(min(PROBED, count)):
        edit, text = sample_pair(seed, index, split, mix)
        source, target, _ = edit.render(1, (resolution, resolution))
        digest.update(text.encode() + source.tobytes() + target.tobytes())
    return digest.hexdigest()[:16]


def save_pairs(pairs: EncodedPairs, path: Path | str) -> None:
    """Write encoded pairs as one safetensors file; texts lie one after the other."""
    tensors = {
        "source": pairs.source_NCFHW,
        "target": pairs.target_NCFHW,
        "text_of_pair": torch.tensor(pairs.text_of_pair),
        "texts": torch.cat(pairs.texts_TD),
        "lengths": torch.tensor([len(text_TD) for text_TD in pairs.texts_TD]),
    }
    if pairs.labels_NFhwA is not None:
        tensors["labels"] = pairs.labels_NFhwA
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"tokens": str(pairs.tokens)})


def load_pairs(path: Path | str) -> EncodedPairs:
    """Read what :func:`save_pairs` wrote.

    Raises:
        SafetensorError: the file is damaged.
    """
    with safe_open(path, framework="pt") as file:
        read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        tokens = int(file.metadata()["tokens"])
    texts_TD = list(read["texts"].split(read["lengths"].tolist()))
    latents = (read["source"], read["target"], read.get("labels"))
    return EncodedPairs(*latents, read["text_of_pair"].tolist(), texts_TD, tokens)
