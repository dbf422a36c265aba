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
from imvideoedit.edit_batch import EditBatch
from imvideoedit.nano.pair_set import PairSet, Rendered
from imvideoedit.nano.rendered import rendered
from imvideoedit.training.encoding import encoder_name, fill_texts, text_key
from imvideoedit.wan.backbone import Backbone

INPUT = "input."  # begins the name of an input in an entry


@dataclass(frozen=True)
class TextTable:
    """Embeddings of texts, one behind the other without padding.

    Attributes:
        flat_TD: all tokens.
        starts_N, lengths_N: of the texts in it.
        tokens: padded length of a text.
    """

    flat_TD: Tensor
    starts_N: Tensor
    lengths_N: Tensor
    tokens: int

    @classmethod
    def of(cls, texts_TD: Sequence[Tensor], tokens: int) -> "TextTable":
        """The table of these texts."""
        lengths_N = torch.tensor([len(text_TD) for text_TD in texts_TD])
        return cls(torch.cat(list(texts_TD)), lengths_N.cumsum(0) - lengths_N, lengths_N, tokens)

    def padded(self, places_B: Tensor) -> Tensor:
        """Some texts, padded by zeros as the encoder does: ``[B, T, D]`` float32."""
        token_T = torch.arange(self.tokens, device=places_B.device)
        there_BT = token_T < self.lengths_N[places_B, None]
        place_BT = (self.starts_N[places_B, None] + token_T).clamp(max=len(self.flat_TD) - 1)
        return torch.where(there_BT[..., None], self.flat_TD[place_BT].float(), 0.0)

    def to(self, device: torch.device) -> "TextTable":
        """A copy on a device."""
        return TextTable(self.flat_TD.to(device), self.starts_N.to(device), self.lengths_N.to(device), self.tokens)


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
    told = [each.name for each in pairs.preparation.inputs if each.kind == "text"]
    texts = {name: [_text(entry[name]) for entry in entries] for name in ("words", *(INPUT + name for name in told))}
    text_encoder = encoder_name(backbone, "text_encoder")
    prompts = {text_key(text_encoder, text): text for own in texts.values() for text in own}
    fill_texts(text_store, prompts, backbone, backbone.device, process)
    embeddings = [text_store.read(key) for key in prompts]
    position = {text: place for place, text in enumerate(prompts.values())}
    return EncodedPairs(
        torch.stack([entry["source"] for entry in entries]),
        torch.stack([entry["target"] for entry in entries]),
        torch.stack([entry["labels"] for entry in entries]) if all("labels" in entry for entry in entries) else None,
        torch.tensor([position[text] for text in texts["words"]]),
        TextTable.of([entry["text"] for entry in embeddings], int(embeddings[0]["tokens"])),
        {
            each.name: torch.stack([entry[INPUT + each.name] for entry in entries])
            for each in pairs.preparation.inputs
            if each.kind != "text"
        },
        {name: torch.tensor([position[text] for text in texts[INPUT + name]]) for name in told},
        pairs.variants,
    )


def _text(stored: Tensor) -> str:
    return stored.numpy().tobytes().decode()


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
    store("words", words("prompt"))
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
