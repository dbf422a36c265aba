"""Opening picture files with Pillow: the one place, so that only decoders that run no program see anybody's bytes."""

import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from PIL import EpsImagePlugin, Image
from PIL.PngImagePlugin import PngImageFile

# Pillow would try all that it knows, among them EPS, which is a program that Ghostscript runs. An MPO opens as a JPEG.
FORMATS = (
    *("PNG", "JPEG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "JPEG2000", "PPM"),
    *("PSD", "ICO", "TGA", "SGI", "PCX", "QOI", "DDS"),
)
EpsImagePlugin.gs_binary = False  # also for libraries that open uploads themselves


def open_picture(file: Path | str | bytes, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """A picture of one of the formats, opened and not yet decoded.

    Args:
        file: a path, or a file's bytes.
        formats: Pillow's names.

    Raises:
        PIL.UnidentifiedImageError: it is none, or of another format.
        OSError: the file is missing or unreadable.
    """
    if isinstance(file, bytes):
        return Image.open(io.BytesIO(file), formats=formats)
    image = Image.open(file, formats=formats)
    if not isinstance(image, PngImageFile) or image.fp is None or not _claims_more(image.fp):
        return image
    # Pillow asks for as much memory as a part of the file says that it has, up to 4 GB; of bytes it gets what is there.
    image.close()
    return Image.open(io.BytesIO(Path(file).read_bytes()), formats=formats)


def png_chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Kind and claimed bytes of each part of an open PNG file, which is left where it was."""
    place = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            yield kind, length
            file.seek(length + 4, io.SEEK_CUR)
    finally:
        file.seek(place)


def _claims_more(file: IO[bytes]) -> bool:
    size = os.fstat(file.fileno()).st_size
    return any(length > size for _, length in png_chunks(file))
