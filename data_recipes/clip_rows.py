"""Rows of clip pairs, and the files that they name.

A row's media are files in the recipe's folder, by names relative to it, since clips do not fit into parquet files as
images do. A file's name holds a hash of what made it, so that a shard that was interrupted does not make it again.

Shapes: F frames, H W pixels.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_recipes.rows import TEXTS, Row
from imvideoedit.common.errors import UserError
from imvideoedit.data.media import read_mask, read_medium
from imvideoedit.video.writer import write_video

LOCAL = {"swap": "rigid_replacement", "modify": "local_attribute", "remove": "object_removal"}
KINDS = LOCAL | {"style": "style_transfer"}
"""Kinds of edits, each with its task of ``imvideoedit.world.tasks``; all but style change one object."""
MEDIA = ("source", "target", "mask")
CLIPS = pa.schema(
    [
        ("id", pa.string()),
        ("scene", pa.string()),  # of the source
        ("kind", pa.string()),
        ("task", pa.string()),
        ("object", pa.string()),  # what a local edit changes, in a few words
        *((name, pa.string()) for name in (*TEXTS, *MEDIA)),
        ("seed", pa.int64()),
        ("scores", pa.string()),  # JSON: criterion to 0..10
        ("comment", pa.string()),  # the judge's
        ("accepted", pa.bool_()),
        ("reason", pa.string()),
    ]
)
SHOWN = 3  # frames of a clip that a model sees
COLOUR: dict[str, Any] = {"crf": 12}  # of clips: finer than what people watch, as models learn from it
EXACT: dict[str, Any] = {"codec": "lossless"}  # of masks
FPS = 16  # of what is written; the rate of a pair does not count in training


def clip_row(**fields: object) -> Row:
    """An accepted row of ``CLIPS``, empty where nothing is given."""
    empty: Row = dict.fromkeys(CLIPS.names, "") | {"seed": 0, "scores": "{}", "accepted": True}
    return empty | fields


class Unreadable(UserError):
    """A row's clip is missing, damaged or too short."""


def read_clip(out: Path, name: str, frames: int | None = None) -> np.ndarray:
    """The first ``frames`` frames of a row's clip, or all: uint8 ``[F, H, W, 3]``.

    Raises:
        Unreadable: it is missing, damaged or too short.
    """
    try:
        return read_medium(out / name, name, frames)
    except UserError as error:
        raise Unreadable(str(error)) from error


def read_clip_mask(out: Path, name: str) -> np.ndarray:
    """A row's mask: uint8 ``[F, H, W]``, 0 or 255.

    Raises:
        Unreadable: it is missing or damaged.
    """
    try:
        return read_mask(out / name, name)
    except UserError as error:
        raise Unreadable(str(error)) from error


def written(out: Path, kind: str, key: str, make: Callable[[], np.ndarray]) -> str:
    """The name of a clip in the recipe's folder, which is made unless it is there.

    Args:
        kind: of the media, the folder's name.
        key: of what decides it.
        make: uint8 ``[F, H, W, 3]``; or of a mask ``[F, H, W]``, which is stored without loss.
    """
    name = f"media/{kind}/{key}.mp4"
    if not (out / name).exists():
        frames = make()
        mask = frames.ndim == 3
        shown = frames[..., None].repeat(3, axis=3) if mask else frames
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(out / name, shown, FPS, **(EXACT if mask else COLOUR))
    return name


def strip(video_FHWC: np.ndarray) -> np.ndarray:
    """First, middle and last frame side by side, as models are shown a clip: uint8 ``[H, 3W, 3]``."""
    places = np.linspace(0, len(video_FHWC) - 1, SHOWN).round().astype(int)
    return np.concatenate(list(video_FHWC[places]), axis=1)
