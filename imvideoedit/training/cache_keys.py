"""Keys of cached entries: hashes of all that decides their contents."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xxhash

from imvideoedit.common.hashing import fingerprint
from imvideoedit.data.media import Medium, contents
from imvideoedit.wan.backbone import Backbone
from imvideoedit.wan.locations import locate


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


def context_key(reader: str, prompt: str, media: Mapping[str, str]) -> str:
    """Key of what a method's reader makes of a text and of media, by their names and keys."""
    return text_key(f"{reader} {sorted(media.items())}", prompt)


def medium_key(encoder: str, medium: Medium, place: Sequence[int]) -> str:
    """Key of a medium's bytes under an :func:`encoder_name`.

    Args:
        place: what decides its pixels besides: (height, width), of a clip (frames, height, width).
    """
    digest = xxhash.xxh3_128(f"{encoder} {tuple(place)} ".encode())
    for part in contents(medium):
        digest.update(part)
    return digest.hexdigest()


def pixels_key(encoder: str, pixels: np.ndarray) -> str:
    """Key of pixels that a transform made, uint8."""
    digest = xxhash.xxh3_128(f"{encoder} pixels {pixels.shape} ".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
