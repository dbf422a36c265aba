"""A folder of numbered PNG files that appears whole or not at all."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imvideoedit.common.errors import UserError

_NAME = "{:06d}.png"


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a fresh folder beside ``path``; rename it to ``path`` when the block succeeds, else remove it.

    Raises:
        UserError: there is something at ``path`` already, other than an empty folder.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} exists already; remove it or give another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    temporary.mkdir()
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class PngFolder:
    """Writes frames as ``000000.png``, ``000001.png`` and so on, each with the same texts.

    Args:
        folder: exists.
        metadata: texts for each file.
    """

    def __init__(self, folder: Path, metadata: dict[str, str]) -> None:
        self._folder, self._count, self._texts = folder, 0, PngInfo()
        for key, text in metadata.items():
            self._texts.add_itxt(key, text)

    def add(self, frame_HWC: np.ndarray) -> None:
        """Write the next frame, uint8 ``[H, W, 3]``."""
        Image.fromarray(frame_HWC).save(self._folder / _NAME.format(self._count), pnginfo=self._texts)
        self._count += 1

    def finish(self) -> None:
        """Nothing is held back."""


def folder_texts(folder: Path) -> dict[str, str]:
    """The texts that ``PngFolder`` wrote.

    Raises:
        UserError: something else filled the folder.
    """
    try:
        with Image.open(folder / _NAME.format(0)) as image:
            return {str(key): text for key, text in image.info.items() if isinstance(text, str)}
    except OSError as error:
        raise UserError(f"{folder} is neither a video nor a folder of frames; give one") from error
