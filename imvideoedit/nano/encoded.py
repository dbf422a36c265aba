"""Training pairs of the nano world, rendered and encoded once, so that training runs no encoder.

A pair's key is a hash of all that decides its contents: autoencoder, seed, mix, renderer, its number, and what the
method asks for.

Shapes: B batch, N pairs, C latent channels, F latent frames, T text tokens, D text width.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from imvideoedit.data.shards import Entry, ProcessInfo, ShardStore, fill
from imvideoedit.edit_batch import EditBatch, Input
from imvideoedit.methods.reader import Reader
from imvideoedit.nano.inputs import Example
from imvideoedit.nano.pair_set import PairSet, Rendered
from imvideoedit.nano.rendered import rendered
from imvideoedit.nano.text_tables import INPUT, WORDS, TextTable, contexts, embeddings
from imvideoedit.training.encoding import encoder_name, text_entry
from imvideoedit.wan.backbone import Backbone


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs in memory: half-precision latents, each text once and without padding.

    Attributes:
        labels_NFhwA: the target's (see ``label_tokens``); None where a transform changed a target, and of films.
        text_of_pair: place of each pair's text in ``texts``.
        conditions: of the pairs by name, ``[N, ...]``: latents, or uint8 pixels of 0 to 255, of masks 0 and 1.
        condition_texts: places of the pairs' texts by name.
        variants: of each pair; all pairs of one follow those of another.
    """

    source_NCFHW: Tensor
    target_NCFHW: Tensor
    labels_NFhwA: Tensor | None
    text_of_pair: Tensor
    texts: "TextTable"
    conditions: Mapping[str, Tensor] = field(default_factory=dict)
    condition_texts: Mapping[str, Tensor] = field(default_factory=dict)
    variants: int = 1

    def __len__(self) -> int:
        """Number of different pairs."""
        return len(self.text_of_pair) // self.variants

    def batch(self, indices: Sequence[int]) -> EditBatch:
        """Stack pairs into a float32 batch, with texts padded by zeros as the encoder does.

        Args:
            indices: of pairs; i + n * len(self) is variant n of pair i.
        """
        rows = torch.as_tensor(list(indices)).to(self.source_NCFHW.device)
        conditions = {name: _decoded(values[rows]) for name, values in self.conditions.items()}
        conditions |= {name: self.texts.padded(places[rows]) for name, places in self.condition_texts.items()}
        return EditBatch(
            self.source_NCFHW[rows].float(),
            self.target_NCFHW[rows].float(),
            self.texts.padded(self.text_of_pair[rows]),
            conditions=conditions,
            labels={} if self.labels_NFhwA is None else {"content": self.labels_NFhwA[rows]},
        )

    def to(self, device: torch.device) -> "EncodedPairs":
        """A copy on a device, so that batches are made there."""
        values: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "texts"}
        moved = tree_map_only(Tensor, lambda tensor: tensor.to(device), values)
        return replace(self, texts=self.texts.to(device), **moved)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        leaves = tree_leaves([getattr(self, each.name) for each in fields(self) if each.name != "texts"])
        return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, Tensor)) + self.texts.flat_TD.nbytes


def _decoded(values: Tensor) -> Tensor:
    """Latents, pixels in [-1, 1] and masks in [0, 1], float32."""
    if values.dtype != torch.uint8:
        return values.float()
    return values.float() if values.shape[1] == 1 else values.float() / 127.5 - 1


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
    places = pairs.keys(encoder_name(backbone, "vae"))

    def render(chunks: Sequence[list[str]]) -> Iterator[tuple[list[str], list[Rendered]]]:
        asked = [[places[key] for key in chunk] for chunk in chunks]
        return zip(
            chunks, rendered(partial(pairs.rendered, backbone.pixel_multiple), asked, process.world_size), strict=True
        )

    def encode(chunk: tuple[list[str], list[Rendered]]) -> Mapping[str, Entry]:
        return dict(zip(chunk[0], _encode(backbone, pairs, chunk[1]), strict=True))

    fill(pair_store, list(places), encode, f"{pairs.split} pairs", process, prepare=render)
    entries = [pair_store.read(key) for key in places]
    prepared = pairs.preparation
    if prepared.reader is not None:
        table, of_pair, of_inputs = contexts(entries)
    else:
        told = [each.name for each in prepared.inputs if each.kind == "text"]
        table, of_pair, of_inputs = embeddings(entries, told, text_store, backbone, process)
    return EncodedPairs(
        torch.stack([entry["source"] for entry in entries]),
        torch.stack([entry["target"] for entry in entries]),
        torch.stack([entry["labels"] for entry in entries]) if all("labels" in entry for entry in entries) else None,
        of_pair,
        table,
        {
            each.name: torch.stack([entry[INPUT + each.name] for entry in entries])
            for each in prepared.inputs
            if each.kind != "text"
        },
        of_inputs,
        pairs.variants,
    )


@torch.no_grad()
def _encode(backbone: Backbone, pairs: PairSet, ready: Sequence[Rendered]) -> list[dict[str, Tensor]]:
    """Entries of some pairs: latents of source and target, the target's labels, the text's UTF-8 bytes, the inputs."""
    examples = pairs.preparation.developed([example for example, _ in ready], pairs.size, backbone.device)
    entries: list[dict[str, Tensor]] = [{} if labels is None else {"labels": labels} for _, labels in ready]

    def store(name: str, values: Sequence[Tensor]) -> None:
        for entry, value in zip(entries, values, strict=True):
            entry[name] = value

    def words(name: str) -> list[Tensor]:
        return [torch.from_numpy(np.frombuffer(example[name].encode(), np.uint8).copy()) for example in examples]

    def latents(name: str) -> list[Tensor]:
        # As bytes to the device, where they become numbers.
        video_BFHWC = torch.from_numpy(np.stack([example[name] for example in examples])).to(backbone.device)
        latents_BCFHW = backbone.encode_video(video_BFHWC.permute(0, 4, 1, 2, 3).float() / 127.5 - 1)
        return [x.clone() for x in latents_BCFHW.half().cpu()]

    store("source", latents("source"))
    store("target", latents("target"))
    store(WORDS, words("prompt"))
    if pairs.preparation.reader is not None:
        contexts = _read(pairs.preparation.reader, examples, pairs.preparation.inputs, backbone.device)
        store("context", [each["text"] for each in contexts])
        store("tokens", [each["tokens"] for each in contexts])
    for each in pairs.preparation.inputs:
        if each.kind == "text":
            store(INPUT + each.name, words(each.name))
        elif each.encoder == "vae":
            store(INPUT + each.name, latents(each.name))
        elif each.kind == "mask":
            store(INPUT + each.name, [torch.from_numpy(example[each.name] > 127)[None].byte() for example in examples])
        else:
            frames = [torch.from_numpy(example[each.name]).permute(3, 0, 1, 2).contiguous() for example in examples]
            store(INPUT + each.name, frames)
    return entries


def _read(reader: Reader, examples: Sequence[Example], inputs: Sequence[Input], device: torch.device) -> list[Entry]:
    """What a method's reader makes of examples."""
    images, found = [each.name for each in inputs if each.kind == "image"], []
    with reader.on(device):
        for example in examples:
            count = len(example["source"])
            frames = [example["source"][place] for place in reader.places(count)]
            seen = {name: example[name][0] for name in images}
            found.append(text_entry(reader.read(example["prompt"], frames, count, seen)))
    return found
