"""Pairs encoded once: latents, pixels and text embeddings on disk, so that training loads no encoder.

A medium's key is a hash of its bytes, its bucket and its encoder; a text's key is one of its words and the text
encoder. What a method's transform changed is keyed by the pixels that it made. So only new or changed media and texts
are encoded, and those that several rows share only once.

Shapes: B batch, C latent channels, F frames, T text tokens, D text width.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imvideoedit.data.pair_record import PairRecord
from imvideoedit.data.shards import SHARD, Entry, ProcessInfo, ShardStore, fill
from imvideoedit.data.sizes import Bucket
from imvideoedit.methods.reader import Reader
from imvideoedit.training.cache_keys import encoder_name, text_key
from imvideoedit.training.latent_pairs import LatentPairs
from imvideoedit.training.planning import Plan, Planner, Source
from imvideoedit.video.geometry import to_model
from imvideoedit.wan.backbone import Backbone, with_parts

__all__ = ["Encoder", "LatentPairs", "encode_dataset", "encoder_name", "fill_texts", "open_stores", "text_key"]

READERS = 8  # threads that decode media while the encoder runs
IMAGES, TEXTS = 8, 64  # frames and texts in a batch of the encoders
CONTEXTS = 16  # in a shard; of Wan's size they are as large as clips
STORES = {"vae": "images", "raw": "pixels", "text": "texts"}  # folder of each encoder's entries


class Encoder:
    """Encodes with a backbone's parts, each loaded when it is first needed.

    Args:
        device: of the parts.
    """

    def __init__(self, backbone: Backbone, device: torch.device) -> None:
        self._backbone, self._device = backbone, device

    def videos(self, videos: Sequence[np.ndarray]) -> Tensor:
        """Half-precision latents ``[B, C, F', H', W']`` on the CPU, of videos of one shape, uint8 ``[F, H, W, 3]``."""
        self._backbone = with_parts(self._backbone, ["vae"], self._device)
        return self._backbone.encode_video(torch.cat([to_model(list(video)) for video in videos])).half().cpu()

    def texts(self, texts: Sequence[str]) -> list[Entry]:
        """Entries of embeddings, in half precision, without their padding."""
        self._backbone = with_parts(self._backbone, ["text_encoder"], self._device)
        return [text_entry(text_TD) for text_TD in self._backbone.encode_text(list(texts)).cpu()]


def open_stores(folder: Path | str, process: ProcessInfo) -> dict[str, ShardStore]:
    """The stores of a cache by their encoder, with damaged entries removed."""
    stores = {encoder: ShardStore(Path(folder) / name) for encoder, name in STORES.items()}
    for store in stores.values():
        store.repair(process)
    return stores


def make_planner(backbone: Backbone, records: Sequence[PairRecord], buckets: Sequence[Bucket], **how: Any) -> Planner:
    """A planner for a backbone's encoders."""
    autoencoder, text_encoder = (encoder_name(backbone, part) for part in ("vae", "text_encoder"))
    return Planner(autoencoder, text_encoder, records, buckets, **how)


def encode_dataset(
    folder: Path | str,
    backbone: Backbone,
    records: Sequence[PairRecord],
    buckets: Sequence[Bucket],
    device: torch.device,
    process: ProcessInfo | None = None,
    **how: Any,
) -> LatentPairs:
    """Encode what the cache lacks, with several processes if there are, and open it.

    Args:
        folder: of the cache; data sets and encoders may share one.
        backbone: names the encoders; missing ones are loaded only where something is to be encoded, and freed after.
        buckets: of every record, see ``bucket_of``.
        device: of the encoders.
        how: ``inputs``, ``transform``, ``variants``, ``seed`` and ``own`` of :class:`Planner`.

    Raises:
        UserError: a row is bad, or the encoders cannot be loaded.
    """
    process = process or ProcessInfo()
    stores = open_stores(folder, process)
    planner = make_planner(backbone, records, buckets, **how)
    whole, items = Plan(), []
    empty = text_key(planner.text_encoder, "") if planner.own is None else None
    with ThreadPoolExecutor(READERS) as threads:
        for plan in threads.map(planner.plan, range(len(records))):
            items.append(plan.items)
            for part in ("latents", "pixels", "texts", "contexts"):
                for key, value in getattr(plan, part).items():
                    getattr(whole, part).setdefault(key, value)
    fill_texts(stores["text"], whole.texts | ({} if empty is None else {empty: ""}), backbone, device, process)
    if planner.own is not None:
        fill_contexts(stores["text"], whole.contexts, planner.own, device, process)
    encoder = Encoder(backbone, device)
    _fill_media(stores["vae"], whole.latents, partial(_encode_latents, encoder, whole.latents), process)
    _fill_media(stores["raw"], whole.pixels, _encode_pixels, process, " as pixels")
    return LatentPairs(stores["vae"], stores["raw"], stores["text"], items, buckets, empty)


def fill_plain_texts(
    folder: Path | str, planner: Planner, backbone: Backbone, device: torch.device, process: ProcessInfo
) -> ShardStore:
    """Encode the texts of rows as they are that the cache lacks, and the empty one; returns their store."""
    store = open_stores(folder, process)["text"]
    prompts = {text_key(planner.text_encoder, ""): ""}
    for index in range(len(planner.records)):
        prompts |= planner.texts(index)
    fill_texts(store, prompts, backbone, device, process)
    return store


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
    encoder = Encoder(backbone, device)

    def encode(keys: list[str]) -> Mapping[str, Entry]:
        entries: dict[str, Entry] = {}
        for start in range(0, len(keys), TEXTS):
            part = keys[start : start + TEXTS]
            entries |= dict(zip(part, encoder.texts([prompts[key] for key in part]), strict=True))
        return entries

    fill(store, list(prompts), encode, "texts", process)


def fill_contexts(
    store: ShardStore,
    contexts: Mapping[str, Callable[[], Tensor]],
    own: Reader,
    device: torch.device,
    process: ProcessInfo,
) -> None:
    """Make the contexts that a store lacks, by the method's reader, which is let go of afterwards."""
    if not store.missing(contexts):
        return

    def encode(keys: list[str]) -> Mapping[str, Entry]:
        return {key: text_entry(contexts[key]()) for key in keys}

    with own.on(device):
        fill(store, list(contexts), encode, "texts with what they are about", process, CONTEXTS)
    own.release()


def text_entry(text_TD: Tensor) -> Entry:
    """An embedding without its padding, in half precision; bfloat16 stays."""
    filled = text_TD.abs().sum(-1).nonzero()
    kept_TD = text_TD[: int(filled[-1]) + 1 if len(filled) else 0]
    kept_TD = kept_TD if kept_TD.dtype == torch.bfloat16 else kept_TD.half()
    return {"text": kept_TD.clone(), "tokens": torch.tensor(len(text_TD))}


Encode = Callable[[list[str], Iterator[np.ndarray]], Mapping[str, Entry]]
"""From keys and their pixels to entries."""


def _fill_media(
    store: ShardStore, sources: Mapping[str, Source], encode: Encode, process: ProcessInfo, how: str = ""
) -> None:
    # By shape, so that the media of a shard can share batches.
    lacking = sorted(store.missing(sources), key=lambda key: sources[key].shape)
    for frames, alike in groupby(lacking, key=lambda key: sources[key].shape[0]):

        def entries(keys: list[str]) -> Mapping[str, Entry]:
            with ThreadPoolExecutor(READERS) as threads:
                return encode(keys, threads.map(lambda key: sources[key].read(), keys))

        what = "images" if frames == 1 else f"clips of {frames} frames"
        fill(store, list(alike), entries, what + how, process, max(1, SHARD // frames))


def _encode_latents(
    encoder: Encoder, sources: Mapping[str, Source], keys: list[str], decoded: Iterator[np.ndarray]
) -> Mapping[str, Entry]:
    entries: dict[str, Entry] = {}
    for shape, alike in groupby(keys, key=lambda key: sources[key].shape):
        members, batch = list(alike), max(1, IMAGES // shape[0])
        for start in range(0, len(members), batch):
            part = members[start : start + batch]
            latents = encoder.videos([next(decoded) for _ in part])
            entries |= {key: {"latents": x.clone()} for key, x in zip(part, latents, strict=True)}
    return entries


def _encode_pixels(keys: list[str], decoded: Iterator[np.ndarray]) -> Mapping[str, Entry]:
    return {key: {"pixels": torch.from_numpy(next(decoded).copy())} for key in keys}
