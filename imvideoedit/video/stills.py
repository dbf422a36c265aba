"""Single pictures out, each in the format that its name says, with texts inside."""

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imvideoedit.common.errors import UserError
from imvideoedit.common.json_file import parse_json
from imvideoedit.video.pictures import open_picture
from imvideoedit.video.pngs import save_png, write_picture

_DESCRIPTION = 0x010E  # EXIF's ImageDescription, which all formats but PNG hold


@dataclass(frozen=True)
class StillFormat:
    """How a picture is written with Pillow."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    longest: int = 2**31 - 1
    """The most pixels of a side."""


_JPEG = StillFormat("JPEG", {"quality": 95, "subsampling": "4:4:4"}, 65_500)
_TIFF = StillFormat("TIFF", {"compression": "tiff_deflate"})
STILLS = {
    ".png": StillFormat("PNG"),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": StillFormat("WEBP", {"lossless": True}, 16_383),
    ".tif": _TIFF,
    ".tiff": _TIFF,
}


def names_still(path: Path | str) -> bool:
    """Whether a file of that name is written as one picture."""
    return Path(path).suffix.lower() in STILLS


def check_still(path: Path, frames: int, size: tuple[int, int] | None = None) -> None:
    """See that a picture can hold what is to be written.

    Raises:
        UserError: there is more than one frame, or the sides are too long for the format.
    """
    if frames > 1:
        raise UserError(
            f"{path} can hold one picture, not {frames} frames; name it .mp4, or a folder and give the codec png"
        )
    kept = STILLS[path.suffix.lower()]
    if size is not None and max(size) > kept.longest:
        raise UserError(f"a {kept.name} has sides of at most {kept.longest} pixels; name {path} .png")


class StillFile:
    """Writes one picture.

    Args:
        target: the file to write, with the suffix of its format.
        metadata: texts for :func:`still_texts`.
        exif: what else the picture is to say; nothing if None.
    """

    def __init__(self, target: Path, metadata: dict[str, str], exif: Image.Exif | None = None) -> None:
        self._target, self._metadata, self._exif = target, metadata, exif or Image.Exif()

    def add(self, frame_HWC: np.ndarray) -> None:
        """Write the picture, uint8 ``[H, W, 3]``.

        Raises:
            UserError: the format cannot hold its size or the texts.
        """
        kept = STILLS[self._target.suffix.lower()]
        if kept.name == "PNG":
            save_png(self._target, frame_HWC, self._metadata, self._exif)
            return
        check_still(self._target, 1, frame_HWC.shape[:2])
        exif = self._exif
        if self._metadata:
            exif[_DESCRIPTION] = json.dumps(self._metadata)
        try:
            write_picture(Image.fromarray(frame_HWC), self._target, kept.name, exif=exif, **kept.options)
        except ValueError as error:  # such as texts longer than a JPEG's segment
            raise UserError(f"a {kept.name} cannot hold this ({error}); name the output .png") from error

    def finish(self) -> None:
        """Nothing is buffered."""


def still_texts(path: Path) -> dict[str, str]:
    """The texts of a picture of any format.

    Raises:
        UserError: there is no such picture.
    """
    try:
        with open_picture(path) as image:
            texts = {str(key): text for key, text in image.info.items() if isinstance(text, str)}
            description = image.getexif().get(_DESCRIPTION)
            if isinstance(description, str):
                with contextlib.suppress(UserError):  # somebody else's words
                    found = parse_json(description, str(path))
                    texts |= {key: text for key, text in found.items() if isinstance(text, str)}
            return texts
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path} is no picture that can be read; give one") from error
