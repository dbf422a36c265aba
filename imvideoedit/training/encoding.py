"""Image pairs encoded once: latents and text embeddings on disk, so that training loads no encoder.

An image's key is a hash of its file's bytes, its bucket and the autoencoder; a text's key of its words and the text
encoder. So what changed is encoded anew, what several rows share is encoded once, and nothing else is.

Shapes: B batch, C latent channels, F latent frames, T text tokens, D text width.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor
from torch.utils.data import Dataset

from imvideoedit.common.hashing import fingerprint
from imvideoedit.data.records import PairRecord
from imvideoedit.data.shards import Entry, ShardStore, Share, fill
from imvideoedit.data.sizes import Size, fit
from imvideoedit.edit_batch import EditBatch
from imvideoedit.video.geometry import to_model
from imvideoedit.video.images import ImageSource, load_rgb
from imvideoedit.wan.backbone import Backbone, with_parts
from imvideoedit.wan.locations import locate

DECODERS = 8  # threads that read images beside the encoder
IMAGES, TEXTS = 8, 64  # encoded at a time


@dataclass(frozen=True)
class PairKeys:
    """Where a pair's parts are."""

    id: str
    source: str
    target: str
    text: str


class LatentPairs(Dataset):
    """Encoded pairs of one data set; ``buckets`` holds the size in pixels of every item.

    Args:
        images, texts: hold all that the keys name.
        pairs: in the order of the items.
        empty: key of the empty text.
    """

    def __init__(
        self, images: ShardStore, texts: ShardStore, pairs: Sequence[PairKeys], buckets: Sequence[Size], empty: str
    ) -> None:
        self.images, self.texts, self.pairs, self.buckets, self.empty = images, texts, pairs, list(buckets), empty

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[str, Tensor, Tensor, Tensor]:
        """Name, source and target ``[C, F, H, W]`` and text ``[T, D]``, as stored."""
        pair = self.pairs[index]
        source, target = (self.images.read(key)["latents"] for key in (pair.source, pair.target))
        return pair.id, source, target, self._text(pair.text)

    def collate(self, items: Sequence[tuple[str, Tensor, Tensor, Tensor]]) -> EditBatch:
        """A batch with float32 latents."""
        ids, sources, targets, texts = zip(*items, strict=True)
        source_BCFHW, target_BCFHW = (torch.stack(part).float() for part in (sources, targets))
        text_BTD = torch.stack(texts)
        return EditBatch(source_BCFHW, target_BCFHW, text_BTD, empty_TD=self._text(self.empty), ids=ids)

    def _text(self, key: str) -> Tensor:
        """An embedding with the zeros that the encoder leaves after a text's end."""
        entry = self.texts.read(key)
        kept_TD = entry["text"]
        text_TD = kept_TD.new_zeros(int(entry["tokens"]), kept_TD.shape[1])
        text_TD[: len(kept_TD)] = kept_TD
        return text_TD


def encode_pairs(
    folder: Path | str,
    backbone: Backbone,
    records: Sequence[PairRecord],
    rows: Sequence[int],
    buckets: Sequence[Size],
    device: torch.device,
    share: Share | None = None,
) -> LatentPairs:
    """Encode what the cache lacks, several processes together, and open it.

    Args:
        folder: of the cache; several data sets and encoders may share one.
        backbone: names the encoders, which are loaded only where something is to be encoded, and let go afterwards.
        rows, buckets: which records, and the size in pixels of each.
        device: to encode on.

    Raises:
        UserError: a row is bad, or the encoders cannot be loaded.
    """
    share = share or Share()
    images, texts = ShardStore(Path(folder) / "images"), ShardStore(Path(folder) / "texts")
    for store in (images, texts):
        store.mend(share)
    names = {part: _encoder_name(backbone, part) for part in ("vae", "text_encoder")}
    chosen = [records[row] for row in rows]
    with ThreadPoolExecutor(DECODERS) as threads:
        pairs = list(threads.map(partial(_keys, names), chosen, buckets))
    prompts = {_text_key(names["text_encoder"], record.edited_prompt): record.edited_prompt for record in chosen}
    empty = _text_key(names["text_encoder"], "")
    prompts[empty] = ""
    sources: dict[str, tuple[ImageSource, str, Size]] = {}
    for record, keys, bucket in zip(chosen, pairs, buckets, strict=True):
        for key, side in ((keys.source, "source"), (keys.target, "target")):
            sources.setdefault(key, (getattr(record, side), f"{record.name}: {side}", bucket))
    _fill_texts(texts, prompts, backbone, device, share)
    _fill_images(images, sources, backbone, device, share)
    return LatentPairs(images, texts, pairs, buckets, empty)


def _fill_texts(store: ShardStore, prompts: Mapping[str, str], backbone: Backbone, device: Any, share: Share) -> None:
    if not store.missing(prompts):
        return
    encoder = with_parts(backbone, ["text_encoder"], device)

    def encode(keys: list[str]) -> Mapping[str, Entry]:
        entries: dict[str, Entry] = {}
        for start in range(0, len(keys), TEXTS):
            part = keys[start : start + TEXTS]
            text_BTD = encoder.encode_text([prompts[key] for key in part]).cpu()
            entries |= {key: text_entry(text_TD) for key, text_TD in zip(part, text_BTD, strict=True)}
        return entries

    fill(store, list(prompts), encode, "texts", share)


def _fill_images(store: ShardStore, sources: Mapping[str, Any], backbone: Backbone, device: Any, share: Share) -> None:
    # By size, so that a shard's images go through the encoder together.
    ordered = sorted(store.missing(sources), key=lambda key: sources[key][2])
    if not ordered:
        return
    encoder = with_parts(backbone, ["vae"], device)

    def read(key: str) -> Any:
        image, name, bucket = sources[key]
        return fit(load_rgb(image, f"{name} {image if isinstance(image, Path) else 'image'}"), bucket)

    def encode(keys: list[str]) -> Mapping[str, Entry]:
        entries: dict[str, Entry] = {}
        with ThreadPoolExecutor(DECODERS) as threads:
            decoded = threads.map(read, keys)
            for _, alike in groupby(keys, key=lambda key: sources[key][2]):
                members = list(alike)
                for start in range(0, len(members), IMAGES):
                    part = members[start : start + IMAGES]
                    video_BCFHW = torch.cat([to_model([next(decoded)]) for _ in part])
                    latents = encoder.encode_video(video_BCFHW).half().cpu()
                    entries |= {key: {"latents": x.clone()} for key, x in zip(part, latents, strict=True)}
        return entries

    fill(store, ordered, encode, "images", share)


def text_entry(text_TD: Tensor) -> Entry:
    """An embedding without the zeros after its end, in half precision; bfloat16 stays as it is."""
    filled = text_TD.abs().sum(-1).nonzero()
    kept_TD = text_TD[: int(filled[-1]) + 1 if len(filled) else 0]
    kept_TD = kept_TD if kept_TD.dtype == torch.bfloat16 else kept_TD.half()
    return {"text": kept_TD.clone(), "tokens": torch.tensor(len(text_TD))}


def _keys(names: Mapping[str, str], record: PairRecord, bucket: Size) -> PairKeys:
    def key(image: ImageSource) -> str:
        data = image.read_bytes() if isinstance(image, Path) else image
        assert isinstance(data, bytes)
        return xxhash.xxh3_128_hexdigest(f"{names['vae']} {bucket} ".encode() + data)

    text = _text_key(names["text_encoder"], record.edited_prompt)
    return PairKeys(record.id, key(record.source), key(record.target), text)


def _text_key(name: str, prompt: str) -> str:
    return xxhash.xxh3_128_hexdigest(f"{name} {prompt}".encode())


def _encoder_name(backbone: Backbone, part: str) -> str:
    """What tells one encoder from another; a hub repository's revision says it all."""
    place, revision = locate(backbone.name, backbone.revision)
    if not Path(place).is_dir():
        return f"{place}@{revision} {part}"
    folders = [Path(place) / part] + ([Path(place) / "tokenizer"] if part == "text_encoder" else [])
    return " ".join(fingerprint(folder) for folder in folders)
