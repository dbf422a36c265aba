"""Scenes for pretraining, rendered and encoded once, so that training runs neither renderer nor autoencoder.

Batch i depends on the seed, i and the share of the training that is done; by steps that share follows from i.

Shapes: N scenes, C latent channels, F latent frames, h x w tokens of a frame, T text tokens.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from imvideoedit.common.errors import UserError
from imvideoedit.data.shards import Entry, ProcessInfo, ShardStore, fill
from imvideoedit.nano.readouts import label_tokens
from imvideoedit.nano.rendered import rendered
from imvideoedit.training.encoding import encoder_name
from imvideoedit.wan.backbone import Backbone
from imvideoedit.world.grammar import caption
from imvideoedit.world.render import render
from imvideoedit.world.scenes import plain_scene, sample_scene

PROBED = 4  # scenes whose pixels and texts identify the state of the renderer and the grammar
SIZE = (64, 64)


@dataclass(frozen=True)
class ScenePool:
    """Training scenes of one length, which batches are drawn from.

    Args:
        frames: 4k + 1.
        scenes: number of them, at least 1.
        batch_size: scenes in a batch of each process, at least 1.
        shares: of the steps, at the start and at the end of training, with a straight line between; relative to the
            other pools', at least 0.
        plain: scenes of one thing, without light, style or camera.

    Raises:
        UserError: an argument is out of its range.
    """

    frames: int
    scenes: int
    batch_size: int
    shares: tuple[float, float]
    plain: bool = False

    def __post_init__(self) -> None:
        if self.frames < 1 or self.frames % 4 != 1:
            raise UserError(f"a pool of scenes has frames {self.frames}; the nano autoencoder takes 4k + 1")
        if min(self.scenes, self.batch_size) < 1:
            raise UserError(f"a pool has {self.scenes} scenes and batches of {self.batch_size}; both are at least 1")
        if len(self.shares) != 2 or min(self.shares) < 0:
            raise UserError(f"a pool's shares are {list(self.shares)}; give two numbers of at least 0")

    def scene(self, seed: int, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        """A scene: uint8 ``[frames, 64, 64, 3]``, what its tokens show (see ``label_tokens``), and its caption."""
        rng = np.random.default_rng((seed, self.frames, int(self.plain), index))
        scene = plain_scene(rng, "train") if self.plain else sample_scene(rng, "train")
        labels = label_tokens(scene, (self.frames - 1) // 4 + 1, (SIZE[0] // 8, SIZE[1] // 8))
        return render(scene, self.frames, SIZE), labels.numpy(), caption(scene, rng)

    def keys(self, seed: int, encoder: str, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
        """Keys of all entries, hashes of all that decides their contents, with the scenes' numbers."""
        base = hashlib.sha256(json.dumps([encoder, seed, self.frames, self.plain]).encode())
        for video, _, text in (self.scene(seed, index) for index in range(PROBED)):
            base.update(video.tobytes() + text.encode() + str(tokenizer(text).input_ids).encode())
        return {
            hashlib.sha256(f"{base.hexdigest()} {index}".encode()).hexdigest()[:32]: index
            for index in range(self.scenes)
        }


@dataclass(frozen=True)
class EncodedScenes:
    """A pool in memory or on a GPU.

    Attributes:
        latents_NCFHW: float16.
        labels_NFhwA: uint8, see ``label_tokens``.
        ids_NT: int16, the captions' padded tokens.
    """

    latents_NCFHW: Tensor
    labels_NFhwA: Tensor
    ids_NT: Tensor

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """``latents`` float32, ``labels`` and ``ids`` int64 of some scenes."""
        at = torch.as_tensor(rows, device=self.ids_NT.device)
        return {
            "latents": self.latents_NCFHW[at].float(),
            "labels": self.labels_NFhwA[at],
            "ids": self.ids_NT[at].long(),
        }


def encoded_scenes(
    folder: Path, backbone: Backbone, pool: ScenePool, seed: int, process: ProcessInfo | None = None
) -> EncodedScenes:
    """Render and encode the scenes that a folder lacks, and read all of them to the autoencoder's device.

    Args:
        process: of several that encode together.
    """
    process = process or ProcessInfo()
    store = ShardStore(folder)
    store.repair(process)
    tokenizer, vae = backbone.tokenizer, backbone.vae
    assert tokenizer is not None and vae is not None
    places = pool.keys(seed, encoder_name(backbone, "vae"), tokenizer)

    def prepare(chunks: Sequence[list[str]]) -> Any:
        asked = [[places[key] for key in chunk] for chunk in chunks]
        return zip(chunks, rendered(partial(pool.scene, seed), asked, process.world_size), strict=True)

    def encode(chunk: tuple[list[str], list[tuple[np.ndarray, np.ndarray, str]]]) -> Mapping[str, Entry]:
        return dict(zip(chunk[0], _entries(backbone, chunk[1]), strict=True))

    fill(store, list(places), encode, f"scenes of {pool.frames} frames", process, prepare=prepare)
    entries = [store.read(key) for key in places]
    stacked = [torch.stack([entry[name] for entry in entries]) for name in ("latents", "labels", "ids")]
    device = next(vae.parameters()).device
    return EncodedScenes(*(tensor.to(device) for tensor in stacked))


@torch.no_grad()
def _entries(backbone: Backbone, scenes: Sequence[tuple[np.ndarray, np.ndarray, str]]) -> list[dict[str, Tensor]]:
    tokenizer: Any = backbone.tokenizer
    videos, labels, texts = zip(*scenes, strict=True)
    video_BFHWC = torch.from_numpy(np.stack(videos))
    latents_BCFHW = backbone.encode_video(video_BFHWC.permute(0, 4, 1, 2, 3).float() / 127.5 - 1).half().cpu()
    ids_BT = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt").input_ids.short()
    return [
        {"latents": x.clone(), "labels": torch.from_numpy(shown), "ids": ids.clone()}
        for x, shown, ids in zip(latents_BCFHW, labels, ids_BT, strict=True)
    ]


class SceneBatches(Dataset):
    """Endless batches; all processes draw from the same pool in a step.

    Args:
        done: the share of the training, in [0, 1], before a step of this number.
        ranks: processes; batch ``step * ranks + rank`` is that of one of them.
    """

    def __init__(
        self,
        pools: Sequence[tuple[ScenePool, EncodedScenes]],
        seed: int,
        done: Callable[[int], float],
        ranks: int = 1,
    ) -> None:
        self.pools, self.seed, self.done, self.ranks = pools, seed, done, ranks

    def pool(self, step: int) -> int:
        """Which pool a step draws from."""
        done = self.done(step)
        shares = np.array([pool.shares[0] + (pool.shares[1] - pool.shares[0]) * done for pool, _ in self.pools])
        ends = np.cumsum(shares / shares.sum())
        draw = np.random.default_rng((self.seed, 1, step)).random()
        return min(int(np.searchsorted(ends, draw, side="right")), len(ends) - 1)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        pool, encoded = self.pools[self.pool(index // self.ranks)]
        rows = np.random.default_rng((self.seed, 2, index)).integers(pool.scenes, size=pool.batch_size)
        return encoded.batch(rows.tolist())
