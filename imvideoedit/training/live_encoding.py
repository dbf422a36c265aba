"""Pairs that a method's transform changes at every epoch: read and changed as pixels, encoded on the device.

Shapes: see ``latent_pairs``.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from imvideoedit.data.shards import Entry, ShardStore
from imvideoedit.data.sizes import Bucket
from imvideoedit.edit_batch import EditBatch, Input
from imvideoedit.training.cache_keys import text_key
from imvideoedit.training.encoding import IMAGES, Encoder
from imvideoedit.training.examples import Example, changed, encoder_of
from imvideoedit.training.latent_pairs import Item, as_condition, padded_text, stack
from imvideoedit.training.planning import Planner

WRITTEN = 256  # embeddings kept of texts that the transform wrote


@dataclass(frozen=True)
class Examples:
    """Changed examples of one bucket, to be encoded."""

    ids: tuple[str, ...]
    values: tuple[Example, ...]
    frames: int

    def to(self, device: torch.device | str, **how: Any) -> "Examples":
        """Itself: pixels go to the device as they are encoded."""
        return self


class PixelPairs(Dataset):
    """Examples of one data set, changed by the planner's transform; index i + e * length is the pair i in epoch e."""

    def __init__(self, planner: Planner) -> None:
        self.planner, self.buckets = planner, list(planner.buckets)

    def __len__(self) -> int:
        return len(self.buckets)

    def __getitem__(self, index: int) -> tuple[str, Example, Bucket]:
        epoch, row = divmod(index, len(self.buckets))
        reader, transform = self.planner.reader(row), self.planner.transform
        assert transform is not None
        example = changed(reader.example(), transform, self.planner.seed, reader.record.row, epoch)
        return reader.record.id, example, self.buckets[row]

    def collate(self, items: Sequence[tuple[str, Example, Bucket]]) -> Examples:
        """A batch; its items share a bucket."""
        ids, values, buckets = zip(*items, strict=True)
        return Examples(ids, values, buckets[0].frames)


class LiveEncoder:
    """Encodes batches of examples as the cache holds them, in half precision.

    Args:
        texts: store of embeddings; texts that it lacks are encoded when they come.
        text_encoder: its name.
        inputs: the method's.
    """

    def __init__(self, encoder: Encoder, texts: ShardStore, text_encoder: str, inputs: Sequence[Input]) -> None:
        self._encoder, self._texts, self._text_encoder = encoder, texts, text_encoder
        self._declared = {each.name: each for each in inputs}
        self._written = functools.lru_cache(WRITTEN)(self._written_text)

    def batch(self, examples: Examples) -> EditBatch:
        """The batch, on the CPU."""
        videos_of = self._videos(examples)
        encoded = [self._cheap(values, examples.frames) for values in examples.values]
        for name, videos in videos_of.items():
            size = max(1, IMAGES // len(videos[0]))
            parts = [self._encoder.videos(videos[start : start + size]) for start in range(0, len(videos), size)]
            for item, latents in zip(encoded, torch.cat(parts), strict=True):
                item[name] = latents
        sides = [(item.pop("source"), item.pop("target"), item.pop("prompt")) for item in encoded]
        items = [Item(name, *side, rest) for name, side, rest in zip(examples.ids, sides, encoded, strict=True)]
        return stack(items, self._text(""))

    def _videos(self, examples: Examples) -> Mapping[str, list[np.ndarray]]:
        """What goes to the autoencoder, by name."""
        first = examples.values[0]
        if any(set(values) != set(first) for values in examples.values):
            raise ValueError(
                f"transform gave the pairs {', '.join(examples.ids)} of one batch different media or texts"
            )
        names = [name for name, value in first.items() if encoder_of(name, value, self._declared) == "vae"]
        return {name: [values[name] for values in examples.values] for name in names}

    def _cheap(self, values: Example, frames: int) -> dict[str, Tensor]:
        """Texts and raw pixels, which need no autoencoder."""
        found: dict[str, Tensor] = {}
        for name, value in values.items():
            encoder = encoder_of(name, value, self._declared)
            if encoder == "text":
                found[name] = self._text(value)
            elif encoder == "raw":
                found[name] = as_condition(torch.from_numpy(value.copy()), frames)
        return found

    def _text(self, text: str) -> Tensor:
        key = text_key(self._text_encoder, text)
        if not self._texts.missing([key]):
            return padded_text(self._texts.read(key))
        return padded_text(self._written(text))

    def _written_text(self, text: str) -> Entry:
        """The embedding of a text that the transform wrote."""
        return self._encoder.texts([text])[0]
