"""Image pairs encoded once: latents and text embeddings on disk, so that training loads no encoder.

An image's key is a hash of its file's bytes, its bucket and the autoencoder; a text's key is one of its words and the
text encoder. So only new or changed images and texts are encoded, and those that several rows share only once.

Shapes: B batch, C latent channels, F latent frames, T text tokens, D text width.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor
from torch.utils.data import Dataset

from imvideoedit.common.hashing import fingerprint
from imvideoedit.data.records import PairRecord
from imvideoedit.data.shards import Entry, ProcessInfo, ShardStore, fill
from imvideoedit.data.sizes import Size, fit
from imvideoedit.edit_batch import EditBatch
from imvideoedit.video.geometry import to_model
from imvideoedit.video.images import ImageSource, load_rgb
from imvideoedit.wan.backbone import Backbone, with_parts
from imvideoedit.wan.locations import locate

READERS = 8  # threads that decode images while the encoder runs
IMAGES, TEXTS = 8, 64  # in a batch of the encoders


@dataclass(frozen=True)
class PairKeys:
    """A pair's id, and the keys of its images and its text."""

    id: str
    source: str
    target: str
    text: str


class LatentPairs(Dataset):
    """Encoded pairs of one data set; ``buckets`` holds the size in pixels of every item.

    Args:
        images, texts: stores of the latents and the embeddings.
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
        """Id, source and target ``[C, F, H, W]`` and text ``[T, D]``, in the stored precision."""
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
        """An embedding, padded with zeros as the encoder does."""
        entry = self.texts.read(key)
        kept_TD = entry["text"]
        text_TD = kept_TD.new_zeros(int(entry["tokens"]), kept_TD.shape[1])
        text_TD[: len(kept_TD)] = kept_TD
        return text_TD


def encode_dataset(
    folder: Path | str,
    backbone: Backbone,
    records: Sequence[PairRecord],
    buckets: Sequence[Size],
    device: torch.device,
    process: ProcessInfo | None = None,
) -> LatentPairs:
    """Encode what the cache lacks, with several processes if there are, and open it.

    Args:
        folder: of the cache; data sets and encoders may share one.
        backbone: names the encoders; missing ones are loaded only where something is to be encoded, and freed after.
        buckets: size in pixels of every record.
        device: of the encoders.

    Raises:
        UserError: a row is bad, or the encoders cannot be loaded.
    """
    process = process or ProcessInfo()
    images, texts = ShardStore(Path(folder) / "images"), ShardStore(Path(folder) / "texts")
    for store in (images, texts):
        store.repair(process)
    autoencoder, text_encoder = (encoder_name(backbone, part) for part in ("vae", "text_encoder"))

    def keys(record: PairRecord, bucket: Size) -> PairKeys:
        source, target = (_image_key(autoencoder, image, bucket) for image in (record.source, record.target))
        return PairKeys(record.id, source, target, text_key(text_encoder, record.edited_prompt))

    with ThreadPoolExecutor(READERS) as threads:
        pairs = list(threads.map(keys, records, buckets))
    empty = text_key(text_encoder, "")
    prompts = {pair.text: record.edited_prompt for pair, record in zip(pairs, records, strict=True)} | {empty: ""}
    sources: dict[str, tuple[ImageSource, str, Size]] = {}
    for record, pair, bucket in zip(records, pairs, buckets, strict=True):
        sources.setdefault(pair.source, (record.source, f"{record.name}: source", bucket))
        sources.setdefault(pair.target, (record.target, f"{record.name}: target", bucket))
    fill_texts(texts, prompts, backbone, device, process)
    _fill_images(images, sources, backbone, device, process)
    return LatentPairs(images, texts, pairs, buckets, empty)


def fill_texts(
    store: ShardStore,
    prompts: Mapping[str, str],
    backbone: Backbone,
    device: torch.device,
    process: ProcessInfo,
) -> None:
    """Encode the texts that a store lacks.

    Args:
        prompts: texts by :func:`text_key`.
    """
    if not store.missing(prompts):
        return
    encoder = with_parts(backbone, ["text_encoder"], device)

    def encode(keys: list[str]) -> Mapping[str, Entry]:
        entries: dict[str, Entry] = {}
        for start in range(0, len(keys), TEXTS):
            part = keys[start : start + TEXTS]
            text_BTD = encoder.encode_text([prompts[key] for key in part]).cpu()
            entries |= {key: _text_entry(text_TD) for key, text_TD in zip(part, text_BTD, strict=True)}
        return entries

    fill(store, list(prompts), encode, "texts", process)


def _text_entry(text_TD: Tensor) -> Entry:
    """An embedding without its padding, in half precision; bfloat16 stays."""
    filled = text_TD.abs().sum(-1).nonzero()
    kept_TD = text_TD[: int(filled[-1]) + 1 if len(filled) else 0]
    kept_TD = kept_TD if kept_TD.dtype == torch.bfloat16 else kept_TD.half()
    return {"text": kept_TD.clone(), "tokens": torch.tensor(len(text_TD))}


def _fill_images(
    store: ShardStore, sources: Mapping[str, Any], backbone: Backbone, device: torch.device, process: ProcessInfo
) -> None:
    # By size, so that the images of a shard can share batches.
    ordered = sorted(store.missing(sources), key=lambda key: sources[key][2])
    if not ordered:
        return
    encoder = with_parts(backbone, ["vae"], device)

    def read(key: str) -> Any:
        image, name, bucket = sources[key]
        return fit(load_rgb(image, f"{name} {image if isinstance(image, Path) else 'image'}"), bucket)

    def encode(keys: list[str]) -> Mapping[str, Entry]:
        entries: dict[str, Entry] = {}
        with ThreadPoolExecutor(READERS) as threads:
            decoded = threads.map(read, keys)
            for _, alike in groupby(keys, key=lambda key: sources[key][2]):
                members = list(alike)
                for start in range(0, len(members), IMAGES):
                    part = members[start : start + IMAGES]
                    video_BCFHW = torch.cat([to_model([next(decoded)]) for _ in part])
                    latents = encoder.encode_video(video_BCFHW).half().cpu()
                    entries |= {key: {"latents": x.clone()} for key, x in zip(part, latents, strict=True)}
        return entries

    fill(store, ordered, encode, "images", process)


def encoder_name(backbone: Backbone, part: str) -> str:
    """Identifies the weights of ``vae`` or ``text_encoder``: by a hub repository's revision, or the folder's files."""
    place, revision = locate(backbone.name, backbone.revision)
    if not Path(place).is_dir():
        return f"{place}@{revision} {part}"
    folders = [Path(place) / part] + ([Path(place) / "tokenizer"] if part == "text_encoder" else [])
    return " ".join(fingerprint(folder) for folder in folders)


def text_key(encoder: str, prompt: str) -> str:
    """Key of a text under an :func:`encoder_name`."""
    return xxhash.xxh3_128_hexdigest(f"{encoder} {prompt}".encode())


def _image_key(encoder: str, image: ImageSource, bucket: Size) -> str:
    data = image.read_bytes() if isinstance(image, Path) else image
    assert isinstance(data, bytes)
    return xxhash.xxh3_128_hexdigest(f"{encoder} {bucket} ".encode() + data)
