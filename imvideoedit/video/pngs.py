"""PNG files with texts: one, or a folder of numbered ones that appears complete or not at all."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imvideoedit.common.errors import UserError
from imvideoedit.common.files import replacing_folder
from imvideoedit.video.pictures import open_picture

_NAME = "{:06d}.png"


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder next to ``path``; rename it to ``path`` when the block succeeds, else remove it.

    Raises:
        UserError: there is something at ``path`` already, other than an empty folder.
    """
    _check_free(path)
    with replacing_folder(path) as temporary:
        yield temporary
        _check_free(path)


def _check_free(path: Path) -> None:
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} exists already; remove it or give another name")


class PngFolder:
    """Writes frames as ``000000.png``, ``000001.png`` and so on, each with the same texts.

    Args:
        folder: exists.
        metadata: texts for each file.
    """

    def __init__(self, folder: Path, metadata: dict[str, str]) -> None:
        self._folder, self._count, self._metadata = folder, 0, metadata

    def add(self, frame_HWC: np.ndarray) -> None:
        """Write the next frame, uint8 ``[H, W, 3]``."""
        save_png(self._folder / _NAME.format(self._count), frame_HWC, self._metadata)
        self._count += 1

    def finish(self) -> None:
        """Nothing is buffered."""


def save_png(path: Path, frame_HWC: np.ndarray, texts: dict[str, str], exif: Image.Exif | None = None) -> None:
    """Write a uint8 ``[H, W, 3]`` frame with texts and EXIF."""
    info = PngInfo()
    for key, text in texts.items():
        info.add_itxt(key, text)
    write_picture(Image.fromarray(frame_HWC), path, "PNG", pnginfo=info, **({"exif": exif} if exif else {}))


def write_picture(image: Image.Image, path: Path, name: str, **options: Any) -> None:
    """Write a picture in a format of Pillow's, whole or with an ``OSError``.

    Not ``image.save(path)``: on a disk that is about to be full Pillow takes a write of a part for the whole.
    """
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    path.write_bytes(buffer.getvalue())


def png_texts(path: Path) -> dict[str, str]:
    """The texts of a PNG, or of the first frame in a folder of them.

    Raises:
        UserError: there is no such image.
    """
    try:
        with open_picture(path / _NAME.format(0) if path.is_dir() else path) as image:
            return {str(key): text for key, text in image.info.items() if isinstance(text, str)}
    except OSError as error:
        raise UserError(f"{path} is neither a video nor a folder of frames; give one") from error
