"""Encoded pairs as a data set that reads a cache.

Shapes: B batch, C latent channels, F frames, H W pixels or latent pixels, T text tokens, D text width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from imvideoedit.data.shards import Entry, ShardStore
from imvideoedit.data.sizes import Bucket
from imvideoedit.edit_batch import EditBatch
from imvideoedit.video.geometry import to_model


@dataclass(frozen=True)
class ItemKeys:
    """A pair's id, and the keys of its latents, pixels and texts by name: source, target, prompt and inputs."""

    id: str
    latents: Mapping[str, str]
    pixels: Mapping[str, str]
    texts: Mapping[str, str]


class Item(NamedTuple):
    """A pair: latents ``[C, F, H, W]`` and the text ``[T, D]`` in the stored precision, and conditions by name."""

    id: str
    source: Tensor
    target: Tensor
    text: Tensor
    conditions: dict[str, Tensor]


class LatentPairs(Dataset):
    """Encoded pairs of one data set, by index; index i + e * length is the pair i in epoch e.

    Args:
        images, pixels, texts: stores of latents, pixels and embeddings.
        pairs: of each row its variants, which take turns by the epoch.
        buckets: of every row.
        empty: key of the empty text; None where the method's own reader makes the texts' embeddings.
    """

    def __init__(
        self,
        images: ShardStore,
        pixels: ShardStore,
        texts: ShardStore,
        pairs: Sequence[Sequence[ItemKeys]],
        buckets: Sequence[Bucket],
        empty: str | None,
    ) -> None:
        self.images, self.pixels, self.texts = images, pixels, texts
        self.pairs, self.buckets, self.empty = pairs, list(buckets), empty

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Item:
        epoch, row = divmod(index, len(self.pairs))
        variants, frames = self.pairs[row], self.buckets[row].frames
        pair = variants[epoch % len(variants)]
        latents = {name: self.images.read(key)["latents"] for name, key in pair.latents.items()}
        pixels = {name: as_condition(self.pixels.read(key)["pixels"], frames) for name, key in pair.pixels.items()}
        texts = {name: padded_text(self.texts.read(key)) for name, key in pair.texts.items()}
        sides = latents.pop("source"), latents.pop("target"), texts.pop("prompt")
        return Item(pair.id, *sides, {**latents, **pixels, **texts})

    def collate(self, items: Sequence[Item]) -> EditBatch:
        """A batch with float32 latents and conditions."""
        return stack(items, None if self.empty is None else padded_text(self.texts.read(self.empty)))


def stack(items: Sequence[Item], empty_TD: Tensor | None) -> EditBatch:
    """A batch with float32 latents, pixels and conditions; texts keep their precision.

    Raises:
        ValueError: the items have different conditions.
    """
    names = list(items[0].conditions)
    if any(set(item.conditions) != set(names) for item in items):
        raise ValueError(
            f"pairs {', '.join(item.id for item in items)} have different conditions; a batch needs one set"
        )
    source_BCFHW, target_BCFHW = (
        torch.stack(side).float() for side in zip(*(item[1:3] for item in items), strict=True)
    )
    conditions = {name: torch.stack([item.conditions[name] for item in items]) for name in names}
    conditions = {name: value if value.ndim == 3 else value.float() for name, value in conditions.items()}
    text_BTD, ids = torch.stack([item.text for item in items]), tuple(item.id for item in items)
    return EditBatch(source_BCFHW, target_BCFHW, text_BTD, conditions, empty_TD=empty_TD, ids=ids)


def as_condition(pixels: Tensor, frames: int) -> Tensor:
    """Pixels as a method takes them: of uint8 ``[F, H, W, 3]`` float ``[3, F, H, W]`` in [-1, 1].

    Of a mask ``[F, H, W]`` float ``[1, F, H, W]`` in [0, 1]; a still one holds for all ``frames``.
    """
    if pixels.ndim == 3:
        return (pixels.float() / 255)[None].expand(1, frames, -1, -1)
    return to_model(list(pixels.numpy()))[0]


def padded_text(entry: Entry) -> Tensor:
    """An embedding ``[T, D]``, padded with zeros as the encoder does."""
    kept_TD = entry["text"]
    text_TD = kept_TD.new_zeros(int(entry["tokens"]), kept_TD.shape[1])
    text_TD[: len(kept_TD)] = kept_TD
    return text_TD
