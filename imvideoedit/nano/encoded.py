"""Training pairs of the nano world, rendered and encoded once, so that training runs no encoder.

A pair's key is a hash of all that decides its contents: autoencoder, seed, mix, renderer, its number, and what the
method asks for.

Shapes: B batch, N pairs, C latent channels, F latent frames, T text tokens, D text width.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imvideoedit.data.shards import Entry, ProcessInfo, ShardStore, fill
from imvideoedit.edit_batch import EditBatch
from imvideoedit.nano.inputs import Example, Preparation
from imvideoedit.nano.mix import PairMix, sample_pair
from imvideoedit.nano.readouts import label_tokens
from imvideoedit.nano.scene_batches import to_tensor
from imvideoedit.training.encoding import encoder_name, fill_texts, text_key
from imvideoedit.wan.backbone import Backbone
from imvideoedit.world.edits import Edit

PROBED = 8  # pairs whose pixels and texts identify the state of the renderer and the grammar
LAYOUT = 2  # of the entries
INPUT = "input."  # begins the name of an input in an entry


@dataclass(frozen=True)
class PairSet:
    """Pairs 0 to ``count - 1`` of a seed.

    Args:
        split: ``train`` or ``test`` compositions.
        resolution: height and width in pixels; must be a multiple of the backbone's ``pixel_multiple``.
        mix: of the training pairs.
        frames: of each pair, 4k + 1; above 1 the pairs are videos, both rendered exactly, or filmed from stills.
        preparation: what a method asks for and changes, and whether pairs are filmed.
        variants: times that each pair is transformed, each time by other random numbers.
    """

    seed: int
    count: int
    split: str
    resolution: int = 64
    mix: PairMix = field(default_factory=PairMix)
    frames: int = 1
    preparation: Preparation = field(default_factory=Preparation)
    variants: int = 1

    def pair(self, index: int) -> tuple[Edit, str]:
        """An edit, and the text for training."""
        return sample_pair(self.seed, index, self.split, self.mix)

    def render(self, edit: Edit) -> tuple[np.ndarray, np.ndarray]:
        """Source and target, uint8 ``[F, H, W, 3]``."""
        return edit.render(self.frames, self.size)[:2]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.resolution, self.resolution

    def example(self, index: int, variant: int = 0) -> Example:
        """A pair as the method makes it, a function of the seed, the index and the variant."""
        edit, text = self.pair(index)
        return self.preparation.example(edit, text, self.frames, self.size, (self.seed, index, variant))

    def keys(self, autoencoder: str) -> dict[str, tuple[int, int]]:
        """Keys of all entries, with the pair's index and the variant; all pairs of a variant before the next."""
        base = self.key(autoencoder)
        names = {
            f"{base} {index}" + (f" {variant}" if variant else ""): (index, variant)
            for variant in range(self.variants)
            for index in range(self.count)
        }
        return {hashlib.sha256(name.encode()).hexdigest()[:32]: place for name, place in names.items()}

    def key(self, autoencoder: str) -> str:
        """A hash of all that decides the pairs, but not their number."""
        settings = [LAYOUT, autoencoder, self.seed, self.split, self.resolution, vars(self.mix), self.frames]
        digest = hashlib.sha256(json.dumps(settings).encode())
        for edit, text in map(self.pair, range(PROBED)):
            digest.update(text.encode() + b"".join(video[0].tobytes() for video in self.render(edit)))
        asked = self.preparation
        if asked.inputs or asked.transform is not None or asked.film:
            digest.update(f"{asked.inputs} {asked.identity}{' film' if asked.film else ''}".encode())
            # A transform may change few examples, so more of them are looked at.
            for place in np.ndindex(PROBED, PROBED if asked.transform is not None else 1):
                for name, value in sorted(self.example(*place).items()):
                    digest.update(name.encode() + (value.encode() if isinstance(value, str) else value.tobytes()))
        return digest.hexdigest()


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs in memory: half-precision latents, each text once and without padding.

    Attributes:
        labels_NFhwA: the target's (see ``label_tokens``); None where a transform changed a target, and of films.
        text_of_pair: place of each pair's text in ``texts_TD``.
        tokens: padded length of a text.
        conditions: of the pairs by name, ``[N, ...]``: latents, or uint8 pixels of 0 to 255, of masks 0 and 1.
        condition_texts: places of the pairs' texts by name.
        variants: of each pair; all pairs of one follow those of another.
    """

    source_NCFHW: Tensor
    target_NCFHW: Tensor
    labels_NFhwA: Tensor | None
    text_of_pair: list[int]
    texts_TD: list[Tensor]
    tokens: int
    conditions: Mapping[str, Tensor] = field(default_factory=dict)
    condition_texts: Mapping[str, list[int]] = field(default_factory=dict)
    variants: int = 1

    def __len__(self) -> int:
        """Number of different pairs."""
        return len(self.text_of_pair) // self.variants

    def batch(self, indices: Sequence[int]) -> EditBatch:
        """Stack pairs into a float32 batch, with texts padded by zeros as the encoder does.

        Args:
            indices: of pairs; i + n * len(self) is variant n of pair i.
        """
        rows = torch.as_tensor(list(indices))
        conditions = {name: _decoded(values[rows]) for name, values in self.conditions.items()}
        conditions |= {name: self._texts(places, indices) for name, places in self.condition_texts.items()}
        return EditBatch(
            self.source_NCFHW[rows].float(),
            self.target_NCFHW[rows].float(),
            self._texts(self.text_of_pair, indices),
            conditions=conditions,
            labels={} if self.labels_NFhwA is None else {"content": self.labels_NFhwA[rows]},
        )

    def _texts(self, places: Sequence[int], indices: Sequence[int]) -> Tensor:
        text_BTD = torch.zeros(len(indices), self.tokens, self.texts_TD[0].shape[-1])
        for row, index in enumerate(indices):
            text_TD = self.texts_TD[places[index]]
            text_BTD[row, : len(text_TD)] = text_TD.float()
        return text_BTD


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

    def encode(keys: list[str]) -> Mapping[str, Entry]:
        return dict(zip(keys, _encode(backbone, pairs, [places[key] for key in keys]), strict=True))

    fill(pair_store, list(places), encode, f"{pairs.split} pairs", process)
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
        [position[text] for text in texts["words"]],
        [entry["text"] for entry in embeddings],
        int(embeddings[0]["tokens"]),
        {
            each.name: torch.stack([entry[INPUT + each.name] for entry in entries])
            for each in pairs.preparation.inputs
            if each.kind != "text"
        },
        {name: [position[text] for text in texts[INPUT + name]] for name in told},
        pairs.variants,
    )


def _text(stored: Tensor) -> str:
    return stored.numpy().tobytes().decode()


@torch.no_grad()
def _encode(backbone: Backbone, pairs: PairSet, places: Sequence[tuple[int, int]]) -> list[dict[str, Tensor]]:
    """Entries of some pairs: latents of source and target, the target's labels, the text's UTF-8 bytes, the inputs."""
    examples = [pairs.example(*place) for place in places]
    entries: list[dict[str, Tensor]] = [{} for _ in places]

    def store(name: str, values: Sequence[Tensor]) -> None:
        for entry, value in zip(entries, values, strict=True):
            entry[name] = value

    def words(name: str) -> list[Tensor]:
        return [torch.from_numpy(np.frombuffer(example[name].encode(), np.uint8).copy()) for example in examples]

    def latents(name: str) -> list[Tensor]:
        video_BCFHW = torch.stack([to_tensor(example[name]) for example in examples])
        return [x.clone() for x in backbone.encode_video(video_BCFHW.to(backbone.device)).half().cpu()]

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
    grid = (pairs.resolution // backbone.pixel_multiple,) * 2
    for entry, example, (index, _) in zip(entries, examples, places, strict=True):
        edit, _ = pairs.pair(index)
        if pairs.preparation.film:
            continue
        if pairs.preparation.transform is None or np.array_equal(example["target"], pairs.render(edit)[1]):
            entry["labels"] = label_tokens(edit.target, (pairs.frames - 1) // 4 + 1, grid)
    return entries
